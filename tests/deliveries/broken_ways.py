"""Further broken states for checks that can be broken in several ways: for each other half, word or column of one.

Used by ``test_ledger.py`` beside ``broken_rows.py``, which has one state for every check. A half that no longer works would
hide there behind the half that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import connection, transaction

from channels.base import ReceiptKind
from chaski.vocabulary import Status
from deliveries import acts, lifecycle
from deliveries.lifecycle import Move
from deliveries.models import Service
from tests.deliveries import steps
from tests.deliveries.broken_rows import (
    BEFORE_ITS_TURN,
    COUNTS,
    LATER,
    NOW,
    TRIED_BEFORE,
    UNINDEXED,
    Break,
    State,
    accepts,
    attempt,
    delivered,
    failed,
    in_doubt,
    leased,
    sent,
    told,
    two_waiting,
    waiting,
)

ENDS = (Status.EXPIRED, Status.CANCELED, Status.SUPPRESSED)


def ended(status: Status) -> State:
    """A message that ended so before any attempt."""

    def state(service: Service) -> Sequence[UUID]:
        ids = waiting(service)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("DELETE FROM pending")
            lifecycle.apply(cursor, [Move(ids[0], (status,))])
        return ids

    return state


def received(kind: ReceiptKind) -> State:
    """A message that was sent, and of which a receipt said more."""

    def state(service: Service) -> Sequence[UUID]:
        ids = sent(service)
        steps.receive(steps.message(ids[0]), kind)
        return ids

    return state


def two_of_a_key(service: Service) -> Sequence[UUID]:
    """Two that wait, one behind the other."""
    return steps.accept(service, 2, ordering_key="cart-1")


def goes(ids: Sequence[UUID]) -> None:
    """The newest is sent."""
    steps.send(ids[-1])


def tried(outcome: str) -> tuple[str, ...]:
    """One attempt that ended so, and is counted."""
    return (attempt(1, outcome, NOW, LATER), "UPDATE message SET attempt_count = 1")


NO_MESSAGE = (
    "DELETE FROM event WHERE message_id = %(id)s",
    "DELETE FROM message WHERE id = %(id)s",
)

#: (the check, in which way it is broken, how).
WAYS: tuple[tuple[str, str, Break], ...] = (
    ("waits, and is in no queue", "in doubt", Break(in_doubt, ("DELETE FROM pending",))),
    ("is in the queue, and done", "failed", Break(failed, (acts.PUT_BACK,))),
    (
        "is in the queue, and done",
        "nowhere",
        Break(
            waiting,
            NO_MESSAGE,
            also=("accepted, and no message", "told to a client by its key, and no message", COUNTS),
        ),
    ),
    (
        "is in doubt and would be sent, or is not and is held",
        "held",
        Break(waiting, ("UPDATE pending SET blocked = true, waiting_for = 'operator'",)),
    ),
    (
        "lost its key within 72 hours, or its key gives another message",
        "another",
        Break(two_waiting, ("UPDATE idempotency SET message_id = %(first)s WHERE message_id = %(id)s",)),
    ),
    (
        "went through an account of another service, or was moved by another account's receipt",
        "receipt",
        Break(delivered, ("UPDATE receipt SET account_id = %(account)s",)),
    ),
    (
        "its events have a gap, or do not end where it is",
        "gap",
        Break(sent, ("DELETE FROM event WHERE sequence = 2",)),
    ),
    (
        "its events have a gap, or do not end where it is",
        "number",
        Break(sent, ("UPDATE event SET sequence = 4 WHERE sequence = 3",)),
    ),
    (
        "its events have a gap, or do not end where it is",
        "end",
        Break(sent, ("UPDATE event SET status = 'in_doubt' WHERE sequence = 3",)),
    ),
    ("its events have a gap, or do not end where it is", "none", Break(waiting, ("DELETE FROM event",))),
    (
        "made a move that is not allowed",
        "first",
        Break(
            sent,
            ("UPDATE event SET status = CASE sequence WHEN 1 THEN 'sending' ELSE 'queued' END WHERE sequence < 3",),
        ),
    ),
    (
        "made a move that is not allowed",
        "no move",
        Break(
            waiting,
            (
                "UPDATE message SET event_sequence = 2",
                "INSERT INTO event SELECT message_id, 2, service_id, 'queued', at, '', NULL, '' FROM event",
            ),
        ),
    ),
    (
        BEFORE_ITS_TURN,
        "overtaken",
        Break(
            two_of_a_key,
            ("UPDATE pending SET blocked = false, waiting_for = '' WHERE message_id = %(id)s",),
            act=goes,
        ),
    ),
    (
        "is final and not finished, or finished and not final",
        "finished",
        Break(waiting, (f"UPDATE message SET finished_at = {NOW}",)),
    ),
    ("counts its attempts wrongly", "number", Break(sent, ("UPDATE attempt SET number = 2",))),
    ("counts its attempts wrongly", "queue", Break(waiting, ("UPDATE pending SET attempt_count = 1",))),
    ("counts its attempts wrongly", "tries", Break(waiting, ("UPDATE pending SET tries = 1",))),
    (
        "is under a lease without an open attempt of its token",
        "token",
        Break(
            leased,
            ("UPDATE attempt SET token = gen_random_uuid()",),
            also=("has an open attempt that no lease holds",),
        ),
    ),
    (
        "has a lease that ends too late, or ended long ago",
        "long ago",
        Break(leased, (f"UPDATE pending SET lease_until = {NOW} - interval '1 hour'",)),
    ),
    (
        "says what only a receipt can say, and none does",
        "read",
        Break(received(ReceiptKind.READ), ("DELETE FROM receipt",)),
    ),
    (
        "says what only a receipt can say, and none does",
        "undelivered",
        Break(received(ReceiptKind.UNDELIVERED), ("DELETE FROM receipt",)),
    ),
    (
        "was accepted by providers more often than its doubts explain",
        "late",
        Break(
            sent,
            (*TRIED_BEFORE, 'UPDATE attempt SET late = \'{"outcome": "accepted"}\' WHERE number = 1'),
        ),
    ),
    *(
        ("was accepted by a provider, and says that it was not sent", status, Break(ended(status), tried("accepted")))
        for status in ENDS
    ),
    *(
        (
            "was accepted by a provider, says that it was not sent, and nothing marks it",
            status,
            Break(ended(status), tried("transient"), accepted=lambda ids: accepts(*ids)),
        )
        for status in ENDS
    ),
    (
        "exists, and no client asked for it",
        "batch",
        Break(
            two_waiting,
            ("UPDATE message SET origin = 'batch'", "UPDATE acceptance SET origin = 'batch'"),
            told=lambda ids: [{"id": str(ids[0]), "service": "shop"}],
        ),
    ),
    (
        "was told by a callback that does not exist",
        "nowhere",
        Break(told, ("UPDATE told SET callback_id = uuidv7()",), endpoint=True),
    ),
    (
        UNINDEXED,
        "keys",
        Break(waiting, ("SET CONSTRAINTS ALL IMMEDIATE", "ALTER TABLE idempotency DROP CONSTRAINT idempotency_pkey")),
    ),
)
