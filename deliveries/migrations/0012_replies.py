import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0011_files'),
    ]

    operations = [
        migrations.CreateModel(
            name='Contact',
            fields=[
                ('pk', models.CompositePrimaryKey('account_id', 'person', blank=True, editable=False, primary_key=True, serialize=False)),
                ('account_id', models.IntegerField()),
                ('person', models.TextField()),
                ('replied_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'contact',
            },
        ),
        migrations.CreateModel(
            name='Reply',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event_id', models.TextField()),
                ('channel', models.TextField()),
                ('sender', models.TextField(help_text='Normalised as a recipient of the channel, as given where that is impossible.')),
                ('name', models.TextField(default='')),
                ('text', models.TextField(default='')),
                ('files', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), default=list, size=None)),
                ('answers', models.TextField(default='', help_text="The vendor's id of the message that is answered.")),
                ('at', models.DateTimeField(help_text="By the vendor's clock.", null=True)),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('applied_at', models.DateTimeField(null=True)),
                ('wish', models.TextField(choices=[('', 'nothing by a word of its own'), ('stop', 'to be left alone'), ('start', 'to be written to again')], default='')),
                ('service_id', models.IntegerField(null=True)),
                ('message_id', models.UUIDField(null=True)),
                ('told_at', models.DateTimeField(help_text='When its callback was made, or found to be wanted by nobody.', null=True)),
                ('callback_id', models.UUIDField(null=True)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='deliveries.account')),
            ],
            options={
                'verbose_name_plural': 'replies',
                'db_table': 'reply',
                'indexes': [models.Index(condition=models.Q(('applied_at__isnull', True)), fields=['id'], name='reply_waiting'), models.Index(condition=models.Q(('applied_at__isnull', False), ('service_id__isnull', False), ('told_at__isnull', True)), fields=['service_id', 'id'], name='reply_untold'), models.Index(condition=models.Q(('message_id__isnull', False)), fields=['message_id'], name='reply_message'), models.Index(fields=['sender', 'id'], name='reply_sender'), models.Index(fields=['received_at'], name='reply_age')],
                'constraints': [models.UniqueConstraint(fields=('account', 'event_id'), name='reply_is_kept_once')],
            },
        ),
    ]
