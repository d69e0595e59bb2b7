"""Inquiries: which doubts are due to be asked for, and what the provider's answer means for the message.

Called by ``deliveries.delivery.reconcile``, which asks. All of it runs in the caller's transactions, fenced by the lease of
the inquiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from channels.base import Accepted, InDoubt, Provider, SendError, Throttled, Transient
from channels.registry import providers
from chaski.vocabulary import Status
from deliveries import lifecycle
from deliveries.conf import limits, timings
from deliveries.delivery.settle import release
from deliveries.lifecycle import Move
from deliveries.retry import Policy, backoff
from deliveries.sql import Cursor, storable

#: The code of the evidence that an ask left on the attempt in doubt.
RECONCILED = "reconciled"
#: Asks of one look; each is a request or a few.
AT_ONCE = 50
LONGEST_WAIT_SECONDS = 3600.0

#: What is due and still held. The rest ends here: a message that left its doubt by another way than ``lifecycle.apply``, and
#: one that was asked for as often as may be without an end, because its asks or what they found could not be written.
TAKE = """
WITH due AS MATERIALIZED (
    SELECT message_id, asked FROM inquiry
    WHERE due_at <= chaski_now() AND (lease_until IS NULL OR lease_until < chaski_now())
    ORDER BY due_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), held AS MATERIALIZED (
    SELECT due.message_id, due.asked, p.tries, p.expires_at FROM due JOIN pending p ON p.message_id = due.message_id
    WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM due))
        AND p.blocked AND p.waiting_for = 'operator' AND p.lease_until IS NULL
), settled AS (
    DELETE FROM inquiry i USING due WHERE i.message_id = due.message_id
        AND NOT EXISTS (SELECT 1 FROM held WHERE held.message_id = due.message_id)
), spent AS (
    UPDATE inquiry i SET due_at = NULL, lease_until = NULL, lease_token = NULL
    FROM held WHERE i.message_id = held.message_id AND held.asked >= %(asks)s
), taken AS (
    UPDATE inquiry i SET lease_until = chaski_now() + make_interval(secs => %(lease)s), lease_token = %(token)s,
        asked = i.asked + 1, asked_at = chaski_now()
    FROM held WHERE i.message_id = held.message_id AND held.asked < %(asks)s
    RETURNING i.*, held.tries, held.expires_at
)
SELECT t.message_id, t.number, t.lease_token, t.account_id, t.since, t.asked, t.tries, t.expires_at, m.recipient, m.content,
       m.options, m.metadata, m.reference, chaski_now()
FROM taken t CROSS JOIN LATERAL (SELECT * FROM message WHERE id = t.message_id LIMIT 1) m
"""

#: The place in the queue is locked before anything else of its message, as everybody does who moves one.
HELD = """
SELECT blocked AND waiting_for = 'operator' AND lease_until IS NULL FROM pending WHERE message_id = %(id)s FOR UPDATE
"""

END = "DELETE FROM inquiry WHERE message_id = %(id)s AND lease_token = %(token)s RETURNING message_id"

LATER = """
UPDATE inquiry SET lease_until = NULL, lease_token = NULL, said = %(said)s,
    due_at = CASE WHEN asked < %(asks)s THEN chaski_now() + make_interval(secs => %(wait)s) END
WHERE message_id = %(id)s AND lease_token = %(token)s RETURNING due_at
"""

#: Any attempt, of whichever message: what is known already is not what we look for.
KNOWN = "SELECT 1 FROM attempt WHERE provider_message_id = %(found)s AND provider_message_id <> '' LIMIT 1"

#: The proof that the attempt in doubt was accepted; what a fenced worker may have reported before stays with it.
EVIDENCE = """
UPDATE attempt SET provider_message_id = %(found)s, late = jsonb_strip_nulls(jsonb_build_object('at', chaski_now(),
    'outcome', 'accepted', 'code', %(code)s::text, 'detail', %(detail)s::text, 'provider_message_id', %(found)s::text,
    'earlier', late))
WHERE message_id = %(id)s AND number = %(number)s
"""

LEAVE = """
DELETE FROM pending WHERE message_id = %(id)s AND blocked AND lease_until IS NULL RETURNING service_id, ordering_key
"""

AGAIN = """
UPDATE pending SET blocked = false, waiting_for = 'retry', due_at = chaski_now() + make_interval(secs => %(wait)s),
    blocking_at = NULL
WHERE message_id = %(id)s AND blocked AND lease_until IS NULL
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A message in doubt under an inquiry's lease."""

    id: UUID
    number: int
    token: UUID
    account_id: int
    since: datetime
    asked: int
    tries: int
    expires_at: datetime
    recipient: str
    content: dict[str, Any]
    options: dict[str, Any]
    metadata: dict[str, Any]
    reference: str
    now: datetime


#: What an ask gave: found, certainly not there, or no certainty.
Finding = Accepted | SendError | None


def take(cursor: Cursor) -> list[Asked]:
    """Lease the inquiries that are due. Runs in the caller's transaction."""
    lease = max(timings().lease(cls) for cls in providers().values())
    cursor.execute(TAKE, {"rows": AT_ONCE, "asks": limits().asks, "lease": lease, "token": uuid4()})
    return [Asked(*row) for row in cursor.fetchall()]


def conclude(cursor: Cursor, asked: Asked, finding: Finding, policy: Policy) -> str:
    """Write what ``finding`` means, fenced by the inquiry's lease; the word for it. Runs in the caller's transaction."""
    if isinstance(finding, Accepted):
        finding = _as_stored(finding)
        if _known(cursor, finding.provider_message_id):
            finding = InDoubt("known_already", "what the provider has is another attempt's")
    if isinstance(finding, SendError):
        return _later(cursor, asked, finding, policy)
    cursor.execute(HELD, {"id": asked.id})
    held = cursor.fetchone() == (True,)
    cursor.execute(END, {"id": asked.id, "token": asked.token})
    ours = cursor.fetchone() is not None
    if not held:
        return "settled_before"
    if not ours:
        return "fenced"
    if isinstance(finding, Accepted):
        return _found(cursor, asked, finding)
    return _absent(cursor, asked, policy)


def _as_stored(found: Accepted) -> Accepted:
    """What the provider said of it, as the database keeps it: what is compared must be what would be written."""
    return Accepted(storable(found.provider_message_id[:500]), storable(found.detail[:500]))


def _known(cursor: Cursor, provider_message_id: str) -> bool:
    cursor.execute(KNOWN, {"found": provider_message_id})
    return cursor.fetchone() is not None


def _later(cursor: Cursor, asked: Asked, error: SendError, policy: Policy) -> str:
    first = policy.ask_after_seconds or Provider.find_after_seconds * timings().scale
    wait = min(first * 2 ** (asked.asked - 1), LONGEST_WAIT_SECONDS)
    if isinstance(error, Throttled | Transient):
        wait = max(wait, error.retry_after or 0.0)
    said = storable(str(error))
    cursor.execute(LATER, {"id": asked.id, "token": asked.token, "said": said, "wait": wait, "asks": limits().asks})
    row = cursor.fetchone()
    if row is None:
        return "fenced"
    return "asked_again" if row[0] else "held"


def _found(cursor: Cursor, asked: Asked, found: Accepted) -> str:
    move = Move(
        asked.id,
        (Status.SENT,),
        reason="found at the provider",
        attempt=asked.number,
        provider_message_id=found.provider_message_id or None,
        only_from=(Status.IN_DOUBT,),
    )
    if not lifecycle.apply(cursor, [move]):
        return "settled_before"
    evidence = {
        "id": asked.id,
        "number": asked.number,
        "found": found.provider_message_id,
        "detail": found.detail,
        "code": RECONCILED,
    }
    cursor.execute(EVIDENCE, evidence)
    _leave(cursor, asked)
    return "found"


def _absent(cursor: Cursor, asked: Asked, policy: Policy) -> str:
    """It is safe to send again; too late for that is too late."""
    late = asked.expires_at <= asked.now
    move = Move(
        asked.id,
        (Status.QUEUED, Status.EXPIRED) if late else (Status.QUEUED,),
        reason="the provider does not have it" + (", and its time has passed" if late else ": it is sent again"),
        only_from=(Status.IN_DOUBT,),
    )
    if not lifecycle.apply(cursor, [move]):
        return "settled_before"
    if late:
        _leave(cursor, asked)
        return "expired"
    cursor.execute(AGAIN, {"id": asked.id, "wait": backoff(policy, max(1, asked.tries))})
    return "sent_again"


def _leave(cursor: Cursor, asked: Asked) -> None:
    cursor.execute(LEAVE, {"id": asked.id})
    release(cursor, cursor.fetchall())
