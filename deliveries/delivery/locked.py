"""Rows that somebody else holds by a lock: which results can be settled without waiting for anybody, and the leases of
those that cannot. Used by recorder and replay.

The recorder finds out only after a statement waited in vain, so what nobody holds costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from channels.registry import providers
from deliveries.conf import timings
from deliveries.delivery.leases import lease_seconds
from deliveries.delivery.settle import Settlement
from deliveries.sql import Cursor, as_json, is_lock_wait

#: For the caller's transaction alone.
PATIENCE = "SELECT set_config('lock_timeout', %s, true)"

#: The ids of which nobody holds what their settlement writes; that is ours then. Nobody is waited for, so the order of the
#: locks does not matter. What there is not cannot be held: a place in the queue that is gone, say.
FREE = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id uuid, token uuid, account_id int)
), place AS MATERIALIZED (
    SELECT message_id FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) FOR UPDATE SKIP LOCKED
), own AS MATERIALIZED (
    SELECT id FROM message WHERE id = ANY(%(ids)s::uuid[]) FOR UPDATE SKIP LOCKED
), opened AS MATERIALIZED (
    SELECT message_id, token FROM attempt WHERE message_id = ANY(%(ids)s::uuid[]) FOR UPDATE SKIP LOCKED
), stopped AS MATERIALIZED (
    SELECT id FROM account WHERE id = ANY(%(accounts)s::int[]) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT id FROM r
WHERE (EXISTS (SELECT 1 FROM place WHERE message_id = r.id) OR NOT EXISTS (
        SELECT 1 FROM pending WHERE message_id = r.id AND message_id = ANY(%(ids)s::uuid[])))
    AND (EXISTS (SELECT 1 FROM own WHERE own.id = r.id) OR NOT EXISTS (
        SELECT 1 FROM message m WHERE m.id = r.id AND m.id = ANY(%(ids)s::uuid[])))
    AND (EXISTS (SELECT 1 FROM opened o WHERE o.message_id = r.id AND o.token = r.token) OR NOT EXISTS (
        SELECT 1 FROM attempt a WHERE a.message_id = r.id AND a.token = r.token AND a.message_id = ANY(%(ids)s::uuid[])))
    AND (r.account_id IS NULL OR EXISTS (SELECT 1 FROM stopped WHERE stopped.id = r.account_id) OR NOT EXISTS (
        SELECT 1 FROM account WHERE account.id = r.account_id))
"""

#: Not at every look: each would be a new version of the row. A channel that this release does not know keeps what it has.
PROLONG = """
WITH ours AS MATERIALIZED (
    SELECT p.message_id, p.channel FROM pending p
    JOIN unnest(%(ids)s::uuid[], %(tokens)s::uuid[]) AS r(id, token) ON r.id = p.message_id AND r.token = p.lease_token
    WHERE p.message_id = ANY(%(ids)s::uuid[]) ORDER BY p.message_id FOR UPDATE OF p SKIP LOCKED
)
UPDATE pending p SET lease_until = chaski_now() + make_interval(secs => l.seconds)
FROM ours JOIN unnest(%(channels)s::text[], %(seconds)s::float8[]) AS l(channel, seconds) ON l.channel = ours.channel
WHERE p.message_id = ours.message_id AND p.message_id = ANY(%(ids)s::uuid[])
    AND p.lease_until < chaski_now() + make_interval(secs => l.seconds / 2)
"""


class NoneFree(psycopg.OperationalError):
    """Not even what nobody holds can be looked for: the database as a whole is slow or locked, which is an outage."""


def be_impatient(cursor: Cursor) -> None:
    """Let no statement of the caller's transaction wait for a lock for long."""
    cursor.execute(PATIENCE, [f"{timings().lock_seconds * 1000:.0f}ms"])


def free(cursor: Cursor, settlements: Sequence[Settlement]) -> list[Settlement]:
    """Those of ``settlements`` that can be settled now, locked for the caller's transaction, which is impatient from here on.

    Waits for no row. What else a settlement may wait for (a table, an insertion that is not committed) it does not see.
    Raises ``NoneFree``.
    """
    be_impatient(cursor)
    rows = [
        {"id": row.id, "token": row.token, "account_id": row.account_id if row.decision.stop_account else None}
        for row in settlements
    ]
    parameters = {
        "rows": as_json(rows),
        "ids": sorted({row.id for row in settlements}),
        "accounts": sorted({row.account_id for row in settlements if row.decision.stop_account}),
    }
    try:
        cursor.execute(FREE, parameters)
    except psycopg.Error as error:
        if is_lock_wait(error):
            raise NoneFree(str(error)) from error
        raise
    found = {row[0] for row in cursor.fetchall()}
    return [row for row in settlements if row.id in found]


def prolong(cursor: Cursor, settlements: Sequence[Settlement]) -> None:
    """Give the leases of ``settlements`` that are still theirs their whole time once more, where less than half of it is left.

    For a worker that is alive and knows what became of them: the sweep would judge that it vanished, and may be the first
    to see that a row is free. Waits for no row: a place in the queue that somebody holds is left out.
    """
    be_impatient(cursor)
    channels = sorted({channel for channel, _ in providers()})
    ours = sorted((row.id, row.token) for row in settlements)
    parameters = {
        "ids": [row_id for row_id, _ in ours],
        "tokens": [token for _, token in ours],
        "channels": channels,
        "seconds": [lease_seconds(channel) for channel in channels],
    }
    cursor.execute(PROLONG, parameters)
