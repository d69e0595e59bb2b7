"""A column on the busiest table: short work, for which it needs the table alone."""

from pathlib import Path

from django.db import migrations, models

import deliveries.migrations

LAST = max(file.stem for file in Path(deliveries.migrations.__path__[0]).glob("0*.py"))


class Migration(migrations.Migration):
    dependencies = [("deliveries", LAST)]
    operations = [migrations.AddField("pending", "shard", models.IntegerField(null=True))]
