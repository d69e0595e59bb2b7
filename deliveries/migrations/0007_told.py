"""Which callback told which event: what the ledger needs to prove that each asked-for event is in exactly one.

No live table is touched. ``chaski_ensure_partitions`` finds the tables that are partitioned by month in the catalogue from
now on, so that a further one needs no further version of it.
"""

from django.db import migrations, models

TABLE = """
CREATE TABLE told (
    message_id uuid NOT NULL, sequence integer NOT NULL, service_id integer NOT NULL, callback_id uuid NOT NULL,
    CONSTRAINT told_pkey PRIMARY KEY (message_id, sequence)
) PARTITION BY RANGE (message_id);

-- Where events have a partition, what is told of them has one: a late receipt tells of a message of months ago.
DO $$
DECLARE
    there record;
BEGIN
    FOR there IN
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'event'::regclass
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF told %s', regexp_replace(there.relname, '^event', 'told'), there.bound);
    END LOOP;
END $$;
"""

FUNCTIONS = """
-- Monthly partitions from last month to `ahead` months from now, for every table that is partitioned by a range of UUIDs;
-- how many were made. Attached rather than created in place, so that a live table is never locked against reading or writing.
CREATE OR REPLACE FUNCTION chaski_ensure_partitions(ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    made int := 0; parent text; month timestamptz; child text;
BEGIN
    FOR parent IN
        SELECT c.relname FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        WHERE c.relnamespace = current_schema()::regnamespace AND p.partstrat = 'r' AND a.atttypid = 'uuid'::regtype
        ORDER BY c.relname
    LOOP
        FOR step IN -1..ahead LOOP
            month := date_trunc('month', now(), 'UTC') + make_interval(months => step);
            child := parent || to_char(month AT TIME ZONE 'UTC', '"_y"YYYY"m"MM');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                    uuid7_floor(month), uuid7_floor(date_trunc('month', month + interval '32 days', 'UTC')));
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- From when on every callback is known to have written down what it told: a relay of the release before may run for a while
-- beside this one, and writes nothing down.
DO $$
BEGIN
    EXECUTE format('CREATE FUNCTION chaski_told_since() RETURNS timestamptz LANGUAGE sql IMMUTABLE AS %L', format(
        'SELECT %L::timestamptz', now() + CASE WHEN EXISTS (SELECT 1 FROM message) THEN interval '1 day' ELSE '0' END));
END $$;
"""

BACK = """
DROP FUNCTION chaski_told_since();
DROP TABLE told;
"""


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0006_parked")]
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(TABLE, BACK), migrations.RunSQL(FUNCTIONS, migrations.RunSQL.noop)],
            state_operations=[
                migrations.CreateModel(
                    name="Told",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "message_id", "sequence", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("message_id", models.UUIDField()),
                        ("sequence", models.IntegerField()),
                        ("service_id", models.IntegerField()),
                        ("callback_id", models.UUIDField()),
                    ],
                    options={"verbose_name_plural": "told", "db_table": "told"},
                )
            ],
        )
    ]
