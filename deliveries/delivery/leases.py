"""How long a lease holds, and what an outage of the database means for all of them. Used by the engine, sweep and relay.

While the database is away no worker can record, so a lease that ends then says nothing about its worker. The relays leave
a mark in the database as long as it takes writes; whoever finds that mark too old, or the server started anew since, has
seen an outage: every lease under way gets one lease more, in the transaction that renews the mark, hence once per outage
whatever relays do. Until then the sweep judges no lease (docs/adr/0011-leases-outlive-an-outage.md).
"""

from __future__ import annotations

import structlog

from channels.registry import providers
from deliveries.conf import timings
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

#: In the server's own time, without the offset by which tests move leases: an outage is measured, not simulated.
LOOK = """
SELECT seen_at < statement_timestamp() - make_interval(secs => %(gap)s) OR server_started_at <> pg_postmaster_start_time(),
       extract(epoch FROM statement_timestamp() - seen_at)::float8
FROM watch WHERE id = 1 FOR UPDATE SKIP LOCKED
"""
#: ON CONFLICT alone would wait for the relay that is at the row.
FIRST = """
INSERT INTO watch (id, seen_at, server_started_at)
SELECT 1, statement_timestamp(), pg_postmaster_start_time() WHERE NOT EXISTS (SELECT 1 FROM watch) ON CONFLICT DO NOTHING
"""
MARK = """
UPDATE watch SET seen_at = statement_timestamp(), server_started_at = pg_postmaster_start_time(),
    prolonged_at = CASE WHEN %(outage)s THEN statement_timestamp() ELSE prolonged_at END WHERE id = 1
"""

#: For every statement that judges leases: false from an outage until its leases are prolonged, also for a statement that
#: was on its way when the server froze. True before the first mark.
JUDGEABLE = """
NOT EXISTS (SELECT 1 FROM watch WHERE seen_at < statement_timestamp() - make_interval(secs => %(gap)s)
    OR server_started_at <> pg_postmaster_start_time())
"""

#: Rows in the order in which every writer locks them. Who holds one is waited for, but not for long: then nothing happened,
#: and the next look tries again.
PATIENCE = "SET LOCAL lock_timeout = '1s'"
PROLONG = """
WITH under_way AS MATERIALIZED (
    SELECT p.message_id FROM attempt a JOIN pending p ON p.message_id = a.message_id AND p.lease_token = a.token
    WHERE a.finished_at IS NULL ORDER BY p.message_id FOR UPDATE OF p
)
UPDATE pending p SET lease_until = greatest(p.lease_until, chaski_now() + make_interval(secs => coalesce((
    SELECT l.seconds FROM unnest(%(channels)s::text[], %(seconds)s::float8[]) AS l(channel, seconds)
    WHERE l.channel = p.channel), %(longest)s)))
FROM under_way WHERE p.message_id = under_way.message_id
RETURNING p.message_id
"""


def lease_seconds(channel: str) -> float:
    """For how long a claim on ``channel`` holds: as its slowest provider needs it."""
    return max(timings().lease(cls) for (served, _), cls in providers().items() if served == channel)


def watch(cursor: Cursor) -> int:
    """Leave the mark; prolong all leases where there was an outage; how many. Runs in the caller's transaction.

    Any number of relays may: who finds another at it leaves it to that one.
    """
    cursor.execute(LOOK, {"gap": timings().outage_seconds})
    found = cursor.fetchone()
    if found is None:
        cursor.execute(FIRST)
        return 0
    outage, silence = found
    prolonged = _prolong(cursor) if outage else 0
    cursor.execute(MARK, {"outage": outage})
    if outage:
        log.warning("leases_prolonged_after_an_outage", leases=prolonged, unseen_seconds=round(silence, 1))
    return prolonged


def _prolong(cursor: Cursor) -> int:
    channels = sorted({channel for channel, _ in providers()})
    seconds = [lease_seconds(channel) for channel in channels]
    cursor.execute(PATIENCE)
    cursor.execute(PROLONG, {"channels": channels, "seconds": seconds, "longest": max(seconds)})
    return len(cursor.fetchall())
