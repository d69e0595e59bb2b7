import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0012_replies'),
    ]

    operations = [
        # True for what the release before accepts: it does not say which messages named their account.
        migrations.AddField(
            model_name='pending',
            name='pinned',
            field=models.BooleanField(db_default=True, default=True, help_text='It waits for its account, also where another could stand in.'),
        ),
        migrations.CreateModel(
            name='Reroute',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('message_id', models.UUIDField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('from_account_id', models.IntegerField()),
                ('to_account_id', models.IntegerField()),
                ('reason', models.TextField()),
            ],
            options={
                'db_table': 'reroute',
                'indexes': [models.Index(fields=['message_id'], name='reroute_message'), models.Index(fields=['at'], name='reroute_age')],
            },
        ),
        migrations.CreateModel(
            name='UnmappedCode',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.TextField()),
                ('code', models.TextField()),
                ('error_class', models.TextField(help_text='What it was taken for, by the HTTP status.')),
                ('detail', models.TextField(default='', help_text="The vendor's words, of the last time.")),
                ('message_id', models.UUIDField(help_text='The message that met it last.')),
                ('times', models.BigIntegerField(default=1)),
                ('first_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('last_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'db_table': 'unmapped_code',
                'constraints': [models.UniqueConstraint(fields=('provider', 'code'), name='unmapped_code_is_kept_once')],
            },
        ),
    ]
