"""The moment at which an attempt's request was written, and the table of those that are asked for at their provider.

A nullable column and a new table: no row is rewritten, no table is locked for longer than the catalogue takes.
"""

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
        migrations.CreateModel(
            name="Inquiry",
            fields=[
                ("message_id", models.UUIDField(primary_key=True, serialize=False)),
                ("number", models.IntegerField(help_text="The attempt in doubt.")),
                ("account_id", models.IntegerField()),
                ("since", models.DateTimeField(help_text="Before the first request that may have arrived.")),
                (
                    "due_at",
                    models.DateTimeField(help_text="When to ask; empty: no more, an operator decides.", null=True),
                ),
                ("asked", models.IntegerField(default=0)),
                ("asked_at", models.DateTimeField(null=True)),
                ("said", models.TextField(default="", help_text="Why the last answer did not settle it.")),
                ("lease_until", models.DateTimeField(null=True)),
                ("lease_token", models.UUIDField(null=True)),
            ],
            options={
                "verbose_name_plural": "inquiries",
                "db_table": "inquiry",
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="inquiry_due"
                    )
                ],
            },
        ),
        migrations.AlterField(
            model_name="account",
            name="in_doubt_policy",
            field=models.CharField(
                choices=[
                    ("retry", "send again, at most as often as the account allows"),
                    ("reconcile", "ask the provider whether it has the message, else wait for an operator"),
                    ("hold", "wait for an operator or a receipt"),
                ],
                default="retry",
                max_length=16,
            ),
        ),
    ]
