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
#: Here and not at the first look: messages that are there now are of a release that did not count.
BEGIN = """
INSERT INTO lineage (one, id, identity, counter, advanced_at, held_reason, begun_late)
SELECT true, gen_random_uuid(), chaski_identity(), 0, chaski_now(), '', EXISTS (SELECT 1 FROM message);
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
                (
                    "begun_late",
                    models.BooleanField(
                        default=False,
                        help_text="Made when messages were there already, and not every witness was heard since.",
                    ),
                ),
            ],
            options={
                "db_table": "lineage",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("one", True)), name="lineage_is_one")
                ],
            },
        ),
        migrations.RunSQL(BEGIN, migrations.RunSQL.noop),
    ]
