"""Partitions, functions and storage parameters: what Django's models cannot say.

The tables that grow with history are partitioned by month on the UUIDv7 of the message. They are empty here, so they are
made anew from what 0001 created. There is no DEFAULT partition: it would forbid DETACH CONCURRENTLY.
"""

from django.db import migrations

FUNCTIONS = """
-- The only clock of leases, retries and deadlines. Tests move it by setting chaski.clock_offset in their sessions.
CREATE FUNCTION chaski_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT statement_timestamp() + coalesce(nullif(current_setting('chaski.clock_offset', true), '')::interval, '0'::interval) $$;

-- The smallest UUIDv7 of a moment (RFC 9562, section 5.7: the first 48 bits are milliseconds).
CREATE FUNCTION uuid7_floor(ts timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (lpad(to_hex((extract(epoch FROM ts) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;

-- Monthly partitions from last month to `ahead` months from now; how many were made. Attached rather than created in
-- place, so that a live table is never locked against reading or writing.
CREATE FUNCTION chaski_ensure_partitions(ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    made int := 0; parent text; month timestamptz; child text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['message', 'attempt', 'event', 'acceptance'] LOOP
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
"""

PARTITIONED = """
ALTER TABLE message RENAME TO message_plain;
CREATE TABLE message (LIKE message_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id);
DROP TABLE message_plain;
ALTER TABLE message ADD CONSTRAINT message_pkey PRIMARY KEY (id);
CREATE INDEX message_list ON message (service_id, channel, status, id);
CREATE INDEX message_recipient ON message (recipient, id);
CREATE INDEX message_reference ON message (service_id, reference, id) WHERE NOT (reference = '');
CREATE INDEX message_batch ON message (batch_id, id) WHERE batch_id IS NOT NULL;

ALTER TABLE attempt RENAME TO attempt_plain;
CREATE TABLE attempt (LIKE attempt_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (message_id);
DROP TABLE attempt_plain;
ALTER TABLE attempt ADD CONSTRAINT attempt_pkey PRIMARY KEY (message_id, number);
CREATE INDEX attempt_provider_message ON attempt (provider_message_id) WHERE NOT (provider_message_id = '');
CREATE INDEX attempt_open ON attempt (message_id) WHERE finished_at IS NULL;

ALTER TABLE event RENAME TO event_plain;
CREATE TABLE event (LIKE event_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (message_id);
DROP TABLE event_plain;
ALTER TABLE event ADD CONSTRAINT event_pkey PRIMARY KEY (message_id, sequence);

ALTER TABLE acceptance RENAME TO acceptance_plain;
CREATE TABLE acceptance (LIKE acceptance_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (message_id);
DROP TABLE acceptance_plain;
ALTER TABLE acceptance ADD CONSTRAINT acceptance_pkey PRIMARY KEY (message_id);
CREATE INDEX acceptance_hour ON acceptance (accepted_at);

SELECT chaski_ensure_partitions(3);
"""

#: A claim takes neighbouring rows and makes each 24 bytes longer, so a little over half of each page must be free for it
#: to stay heap-only (at 50 a fifth of the updates was not).
STORAGE = """
CREATE SEQUENCE pending_position;
ALTER TABLE pending SET (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
"""


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0001_initial")]
    operations = [
        migrations.RunSQL(FUNCTIONS, migrations.RunSQL.noop),
        migrations.RunSQL(PARTITIONED, migrations.RunSQL.noop),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
    ]
