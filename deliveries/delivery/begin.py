"""Beginning: the last look before the calls of a claim, and the commit that says that they begin.

Called by the engine. After it a vanished worker means doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from deliveries.sql import Cursor

BEGIN = """
WITH mine AS MATERIALIZED (
    SELECT p.message_id, p.expires_at <= chaski_now() AS expired, EXISTS (
        SELECT 1 FROM suppression s WHERE s.channel = p.channel AND s.recipient = m.recipient
            AND (s.service_id IS NULL OR s.service_id = p.service_id)) AS suppressed
    FROM pending p JOIN message m ON m.id = p.message_id
    WHERE p.message_id = ANY(%(ids)s::uuid[]) AND m.id = ANY(%(ids)s::uuid[])
        AND p.lease_token = %(token)s AND p.lease_until > chaski_now()
        AND m.status = 'queued'  -- a receipt may have proved it delivered since the claim
), begun AS (
    UPDATE attempt a SET begun_at = chaski_now() FROM mine
    WHERE a.message_id = mine.message_id AND a.message_id = ANY(%(ids)s::uuid[]) AND a.token = %(token)s
        AND NOT mine.expired AND NOT mine.suppressed
)
SELECT message_id, expired, suppressed FROM mine
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """What the last look before the calls said."""

    go: frozenset[UUID]
    expired: frozenset[UUID]
    suppressed: frozenset[UUID]


def begin(cursor: Cursor, token: UUID, ids: Sequence[UUID]) -> Begun:
    """Commit that the calls of ``ids`` begin. What is in none of the three sets is not to be sent by us: do not touch it."""
    cursor.execute(BEGIN, {"ids": list(ids), "token": token})
    rows = cursor.fetchall()
    expired = frozenset(row[0] for row in rows if row[1])
    suppressed = frozenset(row[0] for row in rows if row[2]) - expired
    return Begun(frozenset(row[0] for row in rows) - expired - suppressed, expired, suppressed)
