"""One deliberately broken build, at the level of rows, for each check of the ledger: what is done to a sound state.

Used by ``test_ledger.py``. ``%(id)s`` is the newest message of the state, ``%(first)s`` its oldest, ``%(service)s`` and
``%(other)s`` are two services, ``%(account)s`` is an account of the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from uuid_utils.compat import uuid7

from channels.base import ReceiptKind, Reply
from chaski.vocabulary import Status
from deliveries import acts, callbacks, lifecycle, replies
from deliveries.lifecycle import Move
from deliveries.models import Message, Service
from deliveries.retry import Policy
from tests.deliveries import steps

State = Callable[[Service], Sequence[UUID]]
Line = dict[str, Any]


def waiting(service: Service) -> Sequence[UUID]:
    return steps.accept(service, key="k1")


def two_waiting(service: Service) -> Sequence[UUID]:
    return [*steps.accept(service, key="k1"), *steps.accept(service, key="k2")]


def ordered(service: Service) -> Sequence[UUID]:
    return steps.accept(service, ordering_key="cart-1")


def in_order(service: Service) -> Sequence[UUID]:
    """Two of one key that were sent one after the other."""
    ids = steps.accept(service, 2, ordering_key="cart-1")
    for each in ids:
        steps.send(each)
    return ids


def leased(service: Service) -> Sequence[UUID]:
    ids = steps.accept(service)
    steps.begun(steps.claim(ids=ids))
    with connection.cursor() as cursor:  # as long as a lease is at the scale of these tests
        cursor.execute(
            "UPDATE pending SET lease_until = chaski_now() + interval '5 seconds' WHERE message_id = %s", ids
        )
    return ids


def sent(service: Service) -> Sequence[UUID]:
    ids = steps.accept(service)
    steps.send(ids[0])
    return ids


def replied(service: Service) -> Sequence[UUID]:
    """Somebody answered the message, and the service knows."""
    ids = sent(service)
    with transaction.atomic(), connection.cursor() as cursor:
        account = Message.objects.get(pk=ids[0]).account_id
        replies.store(cursor, [(account, [Reply("reply:1", "+56912345678", "Gracias")])])
        replies.apply(cursor)
        callbacks.tell_replies(cursor, service.pk)
    return ids


def two_sent(service: Service) -> Sequence[UUID]:
    return [*sent(service), *sent(service)]


def delivered(service: Service) -> Sequence[UUID]:
    ids = sent(service)
    steps.receive(steps.message(ids[0]), ReceiptKind.DELIVERED)
    return ids


def failed(service: Service) -> Sequence[UUID]:
    ids = steps.accept(service)
    steps.send(ids[0], steps.REFUSALS["recipient_refused"])
    return ids


def in_doubt(service: Service) -> Sequence[UUID]:
    ids = steps.accept(service)
    steps.send(ids[0], steps.REFUSALS["in_doubt"], Policy(hold_in_doubt=True))
    return ids


def told(service: Service) -> Sequence[UUID]:
    """Two messages whose events are in one callback, which was sent."""
    ids = two_sent(service)
    with transaction.atomic(), connection.cursor() as cursor:
        callbacks.make(cursor, service.pk)
    (claimed,) = steps.claim(channel="webhook")
    steps.begun([claimed])
    steps.record(claimed, steps.ACCEPTED)
    return ids


def lost_in_flight(ids: Sequence[UUID]) -> None:
    with connection.cursor() as cursor:
        lifecycle.apply(cursor, [Move(ids[-1], (Status.SENDING, Status.FAILED))])


def attempt(number: int, outcome: str, begins: str, ends: str = "NULL") -> str:
    return (
        "INSERT INTO attempt (message_id, number, token, account_id, worker, task_id, opened_at, begun_at, finished_at, outcome,"
        f" code, detail, provider_message_id) SELECT id, {number}, gen_random_uuid(), account_id, '', '', {begins}, {begins},"
        f" {ends}, '{outcome}', '', '', 'p{number}' FROM message WHERE id = %(id)s"
    )


NOW = "chaski_now()"
SOON = "chaski_now() + interval '2 minutes'"
LATER = "chaski_now() + interval '3 minutes'"


#: As if another attempt had failed before the one that there is.
TRIED_BEFORE = (
    "UPDATE attempt SET number = 2",
    attempt(1, "transient", f"{NOW} - interval '3 minutes'", f"{NOW} - interval '2 minutes'"),
    "UPDATE message SET attempt_count = 2",
)


def aged(hours: int) -> tuple[str, str]:
    """Every message as if it had been accepted ``hours`` before."""
    return (
        f"UPDATE message SET created_at = created_at - interval '{hours} hours'",
        f"UPDATE acceptance SET accepted_at = accepted_at - interval '{hours} hours'",
    )


def accepts(*ids: UUID | None, at: str = "2020-01-01T00:00:00+00:00") -> list[Line]:
    """What the simulator wrote for each of these messages."""
    line = {"time": at, "provider": "sandbox", "account": "a", "recipient": "+56912345678", "body_sha256": ""}
    return [{**line, "message_id": i and str(i), "provider_message_id": f"other-{n}"} for n, i in enumerate(ids)]


@dataclass(frozen=True, slots=True)
class Break:
    """A sound ``state``, what is done to it, and which further checks must see it because they mean the same."""

    state: State
    statements: tuple[str, ...] = ()
    act: Callable[[Sequence[UUID]], None] | None = None
    also: tuple[str, ...] = ()
    endpoint: bool = False
    told: Callable[[Sequence[UUID]], list[Line]] | None = None
    accepted: Callable[[Sequence[UUID]], list[Line]] | None = None
    received: Callable[[Sequence[UUID]], list[Line]] | None = None


AGAIN = "was tried again after it was accepted, and nobody put it back"
BEFORE_ITS_TURN = "began before its turn, while one before it in its order had not ended and not stepped aside"
COUNTS = "its counts by service, origin and hour differ"
UNINDEXED = "has no unique index any more"
NO_INDEX = ("SET CONSTRAINTS ALL IMMEDIATE", "ALTER TABLE receipt DROP CONSTRAINT receipt_is_kept_once")

BREAKS: dict[str, Break] = {
    "accepted, and no message": Break(
        sent,
        (
            "DELETE FROM event WHERE message_id = %(id)s",
            "DELETE FROM attempt WHERE message_id = %(id)s",
            "DELETE FROM message WHERE id = %(id)s",
        ),
        also=(COUNTS,),
    ),
    COUNTS: Break(waiting, ("UPDATE acceptance SET origin = 'batch'",)),
    "waits, and is in no queue": Break(waiting, ("DELETE FROM pending",)),
    "is in the queue, and done": Break(sent, (acts.PUT_BACK,)),
    "is in doubt and would be sent, or is not and is held": Break(in_doubt, ("UPDATE pending SET blocked = false",)),
    "never accepted": Break(waiting, ("DELETE FROM acceptance",), also=(COUNTS,)),
    "told to a client by its key, and no message": Break(
        waiting,
        ("INSERT INTO idempotency SELECT service_id, 'lost', uuidv7(), fingerprint, created_at FROM idempotency",),
    ),
    "lost its key within 72 hours, or its key gives another message": Break(waiting, ("DELETE FROM idempotency",)),
    "has the key of another message of its service, accepted less than 72 hours before": Break(
        two_waiting, ("UPDATE message SET idempotency_key = 'k1'", *aged(73))
    ),
    "has a receipt of one provider event twice": Break(
        delivered,
        (
            *NO_INDEX,
            "INSERT INTO receipt (account_id, event_id, kind, message_id, provider_message_id, code, detail, effect)"
            " SELECT account_id, event_id, kind, message_id, '', '', '', effect FROM receipt",
        ),
        also=(UNINDEXED,),
    ),
    UNINDEXED: Break(waiting, NO_INDEX),
    "has children of another service": Break(waiting, ("UPDATE pending SET service_id = %(other)s",)),
    "is the message of a child, and does not exist": Break(
        waiting, ("INSERT INTO untold (message_id, sequence, service_id) VALUES (uuidv7(), 1, %(service)s)",)
    ),
    "went through an account of another service, or was moved by another account's receipt": Break(
        sent, ("UPDATE attempt SET account_id = %(account)s",)
    ),
    "its events have a gap, or do not end where it is": Break(sent, ("UPDATE message SET event_sequence = 4",)),
    "made a move that is not allowed": Break(sent, ("UPDATE event SET status = 'canceled' WHERE sequence = 2",)),
    "counts its redeliveries wrongly": Break(sent, ("UPDATE message SET redelivery_count = 1",)),
    "is final and not finished, or finished and not final": Break(failed, ("UPDATE message SET finished_at = NULL",)),
    "counts its attempts wrongly": Break(sent, ("UPDATE message SET attempt_count = 0",)),
    "crashed more workers than it may": Break(waiting, ("UPDATE pending SET crash_count = 3",)),
    "was repeated blindly more often than its account allows": Break(waiting, ("UPDATE pending SET blind_count = 5",)),
    "waits beyond its deadline": Break(
        waiting,
        (
            *aged(2),
            "UPDATE message SET expires_at = chaski_now() - interval '1 hour'",
            "UPDATE pending p SET expires_at = m.expires_at FROM message m WHERE m.id = p.message_id",
        ),
    ),
    "has another deadline in the queue": Break(
        waiting, ("UPDATE pending SET expires_at = expires_at + interval '1 hour'",)
    ),
    "waits for a predecessor that is gone": Break(
        ordered,
        ("UPDATE pending SET blocked = true, waiting_for = 'predecessor', due_at = due_at - interval '1 hour'",),
    ),
    "is stored as sending, which only a lease may say": Break(
        waiting,
        (
            "UPDATE message SET status = 'sending', event_sequence = 2",
            "INSERT INTO event SELECT message_id, 2, service_id, 'sending', at, '', NULL, '' FROM event",
        ),
    ),
    "is under a lease without an open attempt of its token": Break(
        leased,
        (
            f"UPDATE attempt SET finished_at = {NOW}, outcome = 'transient'",
            "UPDATE message SET attempt_count = 1",
        ),
    ),
    "has a lease that ends too late, or ended long ago": Break(
        leased, ("UPDATE pending SET lease_until = lease_until + interval '1 day'",)
    ),
    "is under a lease, and nothing that may be sent": Break(leased, act=lost_in_flight),
    "has an open attempt that no lease holds": Break(
        waiting, (attempt(1, "", NOW), "UPDATE pending SET attempt_count = 1")
    ),
    "has two attempts at once": Break(
        waiting,
        (
            attempt(1, "transient", NOW, LATER),
            attempt(2, "transient", SOON, LATER),
            "UPDATE pending SET attempt_count = 2",
            "UPDATE message SET attempt_count = 2",
        ),
    ),
    BEFORE_ITS_TURN: Break(
        in_order, ("UPDATE attempt SET begun_at = begun_at + interval '1 minute' WHERE message_id = %(first)s",)
    ),
    "says sent, and no attempt, receipt or operator does": Break(
        sent, ("DELETE FROM attempt", "UPDATE message SET attempt_count = 0")
    ),
    "says what only a receipt can say, and none does": Break(delivered, ("DELETE FROM receipt",)),
    "was accepted without the id that its provider gives to others": Break(
        two_sent, ("UPDATE attempt SET provider_message_id = '' WHERE message_id = %(id)s",)
    ),
    "was accepted by providers more often than its doubts explain": Break(
        sent, (attempt(2, "accepted", SOON, LATER), "UPDATE message SET attempt_count = 2"), also=(AGAIN,)
    ),
    AGAIN: Break(sent, (attempt(2, "transient", SOON, LATER), "UPDATE message SET attempt_count = 2")),
    "was accepted by a provider, and says that it was not sent": Break(
        failed, ("UPDATE attempt SET outcome = 'accepted'",)
    ),
    "has an event that its service was not told for ten minutes": Break(
        sent, ("UPDATE event SET at = at - interval '11 minutes'",), endpoint=True
    ),
    "has an event that its service asked for, and no callback has it": Break(
        told, ("DELETE FROM told WHERE message_id = %(id)s AND sequence = 3",), endpoint=True
    ),
    "has an event that was told and would be told again": Break(
        told,
        ("INSERT INTO untold SELECT message_id, sequence, service_id FROM told WHERE message_id = %(id)s",),
        endpoint=True,
    ),
    "was told by a callback that does not exist": Break(
        told, ("UPDATE told SET callback_id = message_id",), endpoint=True
    ),
    "is a reply that was not looked at, or that its service was not told, for ten minutes": Break(
        replied, ("UPDATE reply SET told_at = NULL, received_at = received_at - interval '11 minutes'",), endpoint=True
    ),
    "is a reply that was told by a callback that does not exist": Break(
        replied, ("UPDATE reply SET callback_id = gen_random_uuid()",), endpoint=True
    ),
    "was told to a client, and does not exist": Break(
        waiting, told=lambda ids: [{"id": str(i), "service": "shop"} for i in (*ids, uuid7())]
    ),
    "was told to a client of another service": Break(
        waiting, told=lambda ids: [{"id": str(ids[0]), "service": "other"}]
    ),
    "exists, and no client asked for it": Break(two_waiting, told=lambda ids: [{"id": str(ids[0]), "service": "shop"}]),
    "was accepted by a provider, and does not exist": Break(sent, accepted=lambda ids: accepts(*ids, uuid7())),
    "says that a provider accepted it, and the provider knows nothing of it": Break(
        two_sent, accepted=lambda ids: accepts(ids[0])
    ),
    "was accepted more often, by the providers' own books, than its doubts explain": Break(
        sent, TRIED_BEFORE, accepted=lambda ids: accepts(*ids, *ids)
    ),
    "was accepted by a provider, and no attempt of it explains that": Break(waiting, accepted=lambda i: accepts(*i)),
    "was accepted for somebody, and no attempt explains that": Break(
        waiting, accepted=lambda _: accepts(None, at=f"{datetime.now(UTC)}")
    ),
    "was accepted by a provider, says that it was not sent, and nothing marks it": Break(
        failed, ("UPDATE attempt SET outcome = 'transient'",), accepted=lambda ids: accepts(*ids)
    ),
    "reached a receiver, and no callback has it": Break(
        sent, endpoint=True, received=lambda ids: [{"message_id": str(ids[0]), "sequence": 2}]
    ),
    "was told by a callback that was sent, and did not reach the receiver": Break(
        told,
        endpoint=True,
        received=lambda ids: [{"message_id": str(ids[0]), "sequence": n} for n in (2, 3)],
    ),
}
