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

from chaski.vocabulary import ErrorClass, Status
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
#: The server is to say itself that a statement took too long.
MARGIN_SECONDS = 2.0


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


#: The queue is read as a whole, and nothing else: each message and each attempt is looked up. A join would read every month of
#: messages, and an EXISTS every attempt there ever was.
GROUPS = """
SELECT p.channel, coalesce(s.name, p.service_id::text), m.origin = 'callback', m.created_at <= %(held_at)s, count(*),
    count(*) FILTER (WHERE p.attempt_count > 0 AND (
        SELECT true FROM attempt a WHERE a.message_id = p.message_id AND a.begun_at IS NOT NULL LIMIT 1)),
    count(*) FILTER (WHERE p.blocked AND p.waiting_for = 'operator'),
    count(*) FILTER (WHERE p.expires_at <= chaski_now() AND NOT (p.blocked AND p.waiting_for = 'operator')),
    coalesce(sum((SELECT count(*) FROM receipt r WHERE r.message_id = p.message_id)), 0)::bigint,
    min(m.created_at), max(m.created_at)
FROM pending p CROSS JOIN LATERAL (SELECT created_at, origin FROM message WHERE id = p.message_id LIMIT 1) m
LEFT JOIN service s ON s.id = p.service_id
GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC, 3, 1, 2
"""

#: Callbacks are left out: they come at least once and are numbered, so telling them again does no harm. The message is looked
#: up for each row: a join would be merged, and read every message from the first.
WAITING = """
SELECT p.message_id, p.service_id, p.ordering_key FROM pending p
CROSS JOIN LATERAL (SELECT created_at, origin FROM message WHERE id = p.message_id LIMIT 1) m
WHERE p.message_id > %(after)s AND m.created_at <= %(held_at)s AND m.origin <> 'callback' AND p.lease_until IS NULL
    AND NOT (p.blocked AND p.waiting_for = 'operator')
ORDER BY p.message_id LIMIT %(rows)s FOR UPDATE OF p
"""
LEASED = """
SELECT p.message_id, a.number, a.token, a.opened_at, a.begun_at, p.account_id, p.tries, p.blind_count, p.crash_count,
       p.solitary, p.suspicion, p.expires_at, 'hold', chaski_now(), '', ''
FROM attempt a JOIN pending p ON p.message_id = a.message_id AND p.lease_token = a.token
CROSS JOIN LATERAL (SELECT created_at, origin FROM message WHERE id = p.message_id LIMIT 1) m
WHERE p.message_id > %(after)s AND a.message_id > %(after)s AND a.finished_at IS NULL
    AND m.created_at <= %(held_at)s AND m.origin <> 'callback'
ORDER BY p.message_id LIMIT %(rows)s FOR UPDATE OF p
"""
HOLD = """
UPDATE pending SET blocked = true, waiting_for = 'operator' WHERE message_id = ANY(%(ids)s::uuid[])
"""
REMOVE = "DELETE FROM pending WHERE message_id = ANY(%(ids)s::uuid[])"

#: What people read on the message. Unknown, not unsent: it may have gone out after the backup.
UNKNOWN = (
    "the database was restored from a backup, and whether this went out after the backup is not known:"
    " look at the provider's records, then decide with `manage.py resolve`"
)
_UNKNOWN = Outcome(ErrorClass.IN_DOUBT, CODE, UNKNOWN)
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Decided:
    """One arming: the hold that it ends, and what becomes of the messages from before."""

    lineage: UUID
    held_at: datetime
    verdict: Verdict
    actor: str
    words: str


#: Decides some messages behind the one with this id; the ids of those, in their order.
Step = Callable[[Cursor, Decided, UUID], list[UUID]]


def standing() -> Standing:
    """The lineage as it is, without looking whether it must be held."""
    with connection.cursor() as cursor:
        return lineage.read(cursor)


def groups(held_at: datetime, seconds: float | None = None) -> list[Group]:
    """What is unfinished. Reads the whole queue: seconds for a million. Raises Django's ``DatabaseError`` after ``seconds``."""
    with _patient(seconds) as cursor:
        cursor.execute(GROUPS, {"held_at": held_at})
        return [Group(*row) for row in cursor.fetchall()]


def arm(verdict: Verdict, *, actor: str, reason: str) -> int:
    """Decide what was there before, then let everything go; how many messages were held or expired. Raises ``NotHeld``.

    Interrupted it may be called again: what is decided stays so, and nothing goes out before the last step. Two at once:
    whoever is the first to end the hold ends the other's work too.
    """
    now = standing()
    if now.held_at is None:
        raise NotHeld("the database is not held: nothing waits to be armed")
    decided = Decided(now.id, now.held_at, verdict, actor, f"the database was restored: {reason}")
    messages = 0
    if verdict is not Verdict.SEND:
        for step in (_end_leases, _decide):
            messages += _all(step, decided, messages)
    with _patient() as cursor:
        if not lineage.arm(cursor, now.id):
            raise _armed_meanwhile(messages)
        detail = {"verdict": str(verdict), "messages": messages, "was": now.reason}
        audit(actor, "arm", f"lineage:{now.id}", reason, detail)
    return messages


def _armed_meanwhile(messages: int) -> NotHeld:
    return NotHeld(
        f"somebody else has armed the database meanwhile: {messages:,} messages were decided by this call, the others as the"
        " audit says"
    )


def _all(step: Step, decided: Decided, before: int) -> int:
    """Do ``step`` from the first message to the last, and again until it finds none: a worker may just have settled one."""
    total = 0
    while done := _pass(step, decided, before + total):
        total += done
    return total


def _pass(step: Step, decided: Decided, before: int) -> int:
    """Each transaction begins where the one before ended, so that none reads again what is decided."""
    total, ids = 0, [_FIRST]
    while ids:
        with _patient() as cursor:
            if not lineage.is_held(cursor, decided.lineage):
                raise _armed_meanwhile(before + total)
            ids = step(cursor, decided, ids[-1])
        total += len(ids)
    return total


def _end_leases(cursor: Cursor, decided: Decided, after: UUID) -> list[UUID]:
    cursor.execute(LEASED, {"held_at": decided.held_at, "rows": ROWS, "after": after})
    leases = [EndedLease(*row) for row in cursor.fetchall()]
    settle(cursor, [_settlement(lease, decided.verdict) for lease in leases], by_its_worker=False)
    return [lease.id for lease in leases]


def _settlement(lease: EndedLease, verdict: Verdict) -> Settlement:
    decision = Decision((Status.EXPIRED,), in_doubt=1) if verdict is Verdict.EXPIRE else sweep.held(lease)
    return sweep.settlement(lease, _UNKNOWN, decision)


def _decide(cursor: Cursor, decided: Decided, after: UUID) -> list[UUID]:
    cursor.execute(WAITING, {"held_at": decided.held_at, "rows": ROWS, "after": after})
    rows: Sequence[tuple[UUID, int, str]] = cursor.fetchall()
    ids = [row[0] for row in rows]
    cursor.execute(HOLD if decided.verdict is Verdict.HOLD else REMOVE, {"ids": ids})
    lifecycle.apply(cursor, [_move(message_id, decided) for message_id in ids])
    if decided.verdict is Verdict.EXPIRE:
        release(cursor, [(service_id, key) for _, service_id, key in rows])
    return ids


def _move(message_id: UUID, decided: Decided) -> Move:
    if decided.verdict is Verdict.HOLD:
        return Move(
            id=message_id,
            path=(Status.SENDING, Status.IN_DOUBT),
            actor=decided.actor,
            reason=decided.words,
            error_class=ErrorClass.IN_DOUBT,
            error_code=CODE,
            error_detail=UNKNOWN,
            in_doubt=1,
        )
    return Move(
        id=message_id,
        path=(Status.EXPIRED,),
        actor=decided.actor,
        reason=decided.words,
        error_class=ErrorClass.EXPIRED,
        error_code=CODE,
        error_detail="not sent again after a restore",
    )


@contextmanager
def _patient(seconds: float | None = None) -> Iterator[Cursor]:
    """A transaction whose statements may take ``seconds``, None: as long as they need, by the server's limit and by ours."""
    ours = None if seconds is None else seconds + MARGIN_SECONDS
    with transaction.atomic(), connection.cursor() as cursor, connection.connection.within(ours):
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{int((seconds or 0) * 1000)}ms"])
        yield cursor
