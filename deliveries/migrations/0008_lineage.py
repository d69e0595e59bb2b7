"""Which database this is and how far it has come: what shows that one was restored from a backup."""

from django.db import migrations, models

#: The cluster and the database in it. Ordinary roles may read both; where a cluster forbids the first, the second must do.
IDENTITY = """
CREATE FUNCTION chaski_identity() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    here text := (SELECT oid::text FROM pg_database WHERE datname = current_database());
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/' || here;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN here;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0007_told")]
    operations = [
        migrations.RunSQL(IDENTITY, "DROP FUNCTION chaski_identity()"),
        migrations.CreateModel(
            name="Lineage",
            fields=[
                ("one", models.BooleanField(default=True, primary_key=True, serialize=False)),
                ("id", models.UUIDField()),
                ("identity", models.TextField()),
                ("counter", models.BigIntegerField()),
                ("advanced_at", models.DateTimeField()),
                ("held_at", models.DateTimeField(null=True)),
                ("held_reason", models.TextField(default="")),
            ],
            options={
                "db_table": "lineage",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("one", True)), name="lineage_is_one")
                ],
            },
        ),
    ]
