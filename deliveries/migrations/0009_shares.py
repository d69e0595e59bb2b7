from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Indexes for claims that go by account too, and for the few suspects of crashes. Writers go on meanwhile."""

    atomic = False
    dependencies = [
        ("deliveries", "0008_lineage"),
    ]

    operations = [
        AddIndexConcurrently(
            "pending",
            models.Index(
                condition=models.Q(("blocked", False)),
                fields=["channel", "lane", "service_id", "account_id", "due_at"],
                name="pending_share",
            ),
        ),
        AddIndexConcurrently(
            "pending",
            models.Index(
                condition=models.Q(("suspicion__gte", 2)),
                fields=["channel", "lane", "due_at"],
                name="pending_suspect",
            ),
        ),
    ]
