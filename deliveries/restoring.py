"""After a restore: what would be sent again, and the decision about it. Called by `manage.py arm`.

While the database is held, acceptance goes on and receipts are applied; nothing is claimed, ended, expired or told. What was
there when it was found out counts as "before": whether it went out after the backup nobody here can know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.db import connection, transaction

from chaski.vocabulary import ErrorClass, Status, WaitingFor
from deliveries import lifecycle, lineage
from deliveries.acts import audit
from deliveries.delivery import sweep
from deliveries.delivery.settle import Settlement, release, settle
from deliveries.delivery.sweep import EndedLease
from deliveries.lifecycle import Move
from deliveries.lineage import Standing
from deliveries.retry import Decision, Outcome
from deliveries.sql import Cursor

#: Rows of one transaction: locks are short, and whoever is interrupted begins again where it stopped.
ROWS = 500
CODE = "restored"


class NotHeld(ValueError):
    """Nothing is to be armed; the text says so."""


class Verdict(StrEnum):
    """What becomes of the messages that were there before."""

    SEND = "send"
    HOLD = "hold"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Group:
    """Unfinished messages of one service and channel. ``before``: they were there when the restore was found out.

    ``begun`` have an attempt that may have reached a provider, ``in_doubt`` wait for an operator anyway, ``late`` are past
    their deadline and will expire; ``receipts`` came for them, which prove that they were sent.
    """

    channel: str
    service: str
    callbacks: bool
    before: bool
    messages: int
    begun: int
    in_doubt: int
    late: int
    receipts: int
    oldest_at: datetime
    newest_at: datetime


GROUPS = """
SELECT p.channel, coalesce(s.name, p.service_id::text), m.origin = 'callback', m.created_at <= %(held_at)s, count(*),
    count(*) FILTER (WHERE p.attempt_count > 0 AND EXISTS (
        SELECT 1 FROM attempt a WHERE a.message_id = p.message_id AND a.begun_at IS NOT NULL)),
    count(*) FILTER (WHERE p.blocked AND p.waiting_for = 'operator'),
    count(*) FILTER (WHERE p.expires_at <= chaski_now() AND NOT (p.blocked AND p.waiting_for = 'operator')),
    coalesce(sum((SELECT count(*) FROM receipt r WHERE r.message_id = p.message_id)), 0)::bigint,
    min(m.created_at), max(m.created_at)
FROM pending p JOIN message m ON m.id = p.message_id LEFT JOIN service s ON s.id = p.service_id
GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC, 3, 1, 2
"""

#: Callbacks are left out: they come at least once and are numbered, so telling them again does no harm.
WAITING = """
SELECT p.message_id, p.service_id, p.ordering_key FROM pending p JOIN message m ON m.id = p.message_id
WHERE m.created_at <= %(held_at)s AND m.origin <> 'callback' AND p.lease_until IS NULL
    AND NOT (p.blocked AND p.waiting_for = 'operator')
ORDER BY p.message_id LIMIT %(rows)s FOR UPDATE OF p
"""
LEASED = """
SELECT p.message_id, a.number, a.token, a.opened_at, a.begun_at, p.account_id, p.tries, p.blind_count, p.crash_count,
       p.solitary, p.suspicion, p.expires_at, 'hold', chaski_now(), '', ''
FROM attempt a JOIN pending p ON p.message_id = a.message_id AND p.lease_token = a.token
JOIN message m ON m.id = p.message_id
WHERE a.finished_at IS NULL AND m.created_at <= %(held_at)s AND m.origin <> 'callback'
ORDER BY p.message_id LIMIT %(rows)s FOR UPDATE OF p
"""
HOLD = """
UPDATE pending SET blocked = true, waiting_for = 'operator' WHERE message_id = ANY(%(ids)s::uuid[])
"""
REMOVE = "DELETE FROM pending WHERE message_id = ANY(%(ids)s::uuid[])"

#: Unknown, not unsent: it was under way at the time of the backup.
_UNKNOWN = Outcome(ErrorClass.IN_DOUBT, CODE, "the database was restored: what came after the backup is not known")


def standing() -> Standing:
    """The lineage as it is, without looking whether it must be held."""
    with connection.cursor() as cursor:
        return lineage.read(cursor)


def groups(held_at: datetime) -> list[Group]:
    """What is unfinished. Reads the whole queue: seconds for a million."""
    with _patient() as cursor:
        cursor.execute(GROUPS, {"held_at": held_at})
        return [Group(*row) for row in cursor.fetchall()]


def arm(verdict: Verdict, *, actor: str, reason: str) -> int:
    """Decide what was there before, then let everything go; how many messages were held or expired. Raises ``NotHeld``.

    Interrupted it may be called again: what is decided stays so, and nothing goes out before the last step.
    """
    now = standing()
    if now.held_at is None:
        raise NotHeld("the database is not held: nothing waits to be armed")
    words = f"the database was restored: {reason}"
    decided = 0
    if verdict is not Verdict.SEND:
        decided += _all(lambda cursor: _end_leases(cursor, now.held_at, verdict))
        decided += _all(lambda cursor: _decide(cursor, now.held_at, verdict, actor, words))
    with transaction.atomic(), connection.cursor() as cursor:
        if not lineage.arm(cursor):
            raise NotHeld("somebody else has armed the database meanwhile")
        detail = {"verdict": str(verdict), "messages": decided, "was": now.reason}
        audit(actor, "arm", f"lineage:{now.id}", reason, detail)
    return decided


def _all(step: Callable[[Cursor], int]) -> int:
    total = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            done = step(cursor)
        if not done:
            return total
        total += done


def _end_leases(cursor: Cursor, held_at: datetime | None, verdict: Verdict) -> int:
    cursor.execute(LEASED, {"held_at": held_at, "rows": ROWS})
    leases = [EndedLease(*row) for row in cursor.fetchall()]
    settle(cursor, [_settlement(lease, verdict) for lease in leases], by_its_worker=False)
    return len(leases)


def _settlement(lease: EndedLease, verdict: Verdict) -> Settlement:
    decision = Decision((Status.EXPIRED,), in_doubt=1) if verdict is Verdict.EXPIRE else sweep.held(lease)
    return sweep.settlement(lease, _UNKNOWN, decision)


def _decide(cursor: Cursor, held_at: datetime | None, verdict: Verdict, actor: str, words: str) -> int:
    cursor.execute(WAITING, {"held_at": held_at, "rows": ROWS})
    rows: Sequence[tuple[UUID, int, str]] = cursor.fetchall()
    ids = [row[0] for row in rows]
    if verdict is Verdict.HOLD:
        cursor.execute(HOLD, {"ids": ids})
        path: tuple[Status, ...] = (Status.SENDING, Status.IN_DOUBT)
    else:
        cursor.execute(REMOVE, {"ids": ids})
        path = (Status.EXPIRED,)
    lifecycle.apply(cursor, [_move(message_id, path, verdict, actor, words) for message_id in ids])
    if verdict is Verdict.EXPIRE:
        release(cursor, {(service_id, key) for _, service_id, key in rows if key})
    return len(rows)


def _move(message_id: UUID, path: tuple[Status, ...], verdict: Verdict, actor: str, words: str) -> Move:
    return Move(
        id=message_id,
        path=path,
        actor=actor,
        reason=words,
        error_class=ErrorClass.IN_DOUBT if verdict is Verdict.HOLD else ErrorClass.EXPIRED,
        error_code=CODE,
        error_detail=str(WaitingFor.OPERATOR) if verdict is Verdict.HOLD else "not sent again after a restore",
        in_doubt=1 if verdict is Verdict.HOLD else 0,
    )


@contextmanager
def _patient() -> Iterator[Cursor]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        yield cursor
