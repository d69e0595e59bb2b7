from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0013_failover'),
    ]

    operations = [
        migrations.CreateModel(
            name='KeptMedia',
            fields=[
                ('pk', models.CompositePrimaryKey('file_id', 'account_id', 'place', blank=True, editable=False, primary_key=True, serialize=False)),
                ('file_id', models.UUIDField()),
                ('account_id', models.IntegerField()),
                ('place', models.TextField(help_text='What else it depends on: the host, the number or bot, the kind of file.')),
                ('media_id', models.TextField(help_text='Empty while somebody uploads the file.')),
                ('kept_at', models.DateTimeField()),
                ('kept_until', models.DateTimeField(help_text='Until then the vendor surely has it, or the upload is under way.')),
            ],
            options={
                'db_table': 'kept_media',
            },
        ),
    ]
