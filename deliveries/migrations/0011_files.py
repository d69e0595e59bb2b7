import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0010_breakers'),
    ]

    operations = [
        migrations.CreateModel(
            name='File',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('sha256', models.BinaryField(max_length=32)),
                ('size', models.IntegerField(help_text='In bytes.')),
                ('name', models.CharField(max_length=255)),
                ('content_type', models.CharField(max_length=127)),
                ('content', models.BinaryField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('kept_until', models.DateTimeField()),
                ('service', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='deliveries.service')),
            ],
            options={
                'db_table': 'file',
                'indexes': [models.Index(fields=['kept_until'], name='file_kept_until')],
                'constraints': [models.UniqueConstraint(fields=('service', 'sha256', 'name', 'content_type'), name='file_once_per_service')],
            },
        ),
        # Pictures and PDFs are compressed already; whole values are read, never parts of them.
        migrations.RunSQL(
            'ALTER TABLE file ALTER COLUMN content SET STORAGE EXTERNAL',
            'ALTER TABLE file ALTER COLUMN content SET STORAGE EXTENDED',
        ),
    ]
