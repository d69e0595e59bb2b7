"""The moment at which an attempt's request was written. A nullable column: no row is rewritten."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0004_watch")]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="written_at",
            field=models.DateTimeField(
                help_text="When its request was handed to the network; empty where none was, or the provider does not tell.",
                null=True,
            ),
        ),
    ]
