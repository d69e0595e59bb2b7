"""An index on the busiest table, made beside its readers and writers."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("deliveries", "0900_column")]
    operations = [AddIndexConcurrently("pending", models.Index(fields=["shard"], name="pending_shard"))]
