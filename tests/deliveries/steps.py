"""The stages of a delivery, one call each, on Django's connection: what the engine does, without its threads.

Used by the tests of this folder, which decide the order and the outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg.types.json import JsonbLoader

from channels.base import Receipt, ReceiptKind
from chaski.vocabulary import Lane
from deliveries import intake, pausing, receipts
from deliveries.delivery import sweep
from deliveries.delivery.begin import Begun, begin
from deliveries.delivery.blocked_heads import BlockedHeads
from deliveries.delivery.claim import Claimed, Claimer, Request
from deliveries.delivery.heads import Heads
from deliveries.delivery.settle import Settlement, settle
from deliveries.delivery.turns import UNLIMITED, Room
from deliveries.models import Account, Message, Pending, Service
from deliveries.models.messages import Origin
from deliveries.postgresql.prepared import prepared
from deliveries.retry import Decision, History, Outcome, Policy, decide
from deliveries.sql import Cursor

LEASE_SECONDS = 60.0
ACCEPTED = Outcome(provider_message_id="p1")
#: One outcome of each class that a provider may give.
REFUSALS = {
    "not_sent": Outcome("not_sent", "refused"),
    "throttled": Outcome("throttled", "http_429", retry_after=5.0),
    "transient": Outcome("transient", "http_500"),
    "recipient_refused": Outcome("recipient_refused", "21211"),
    "content_refused": Outcome("content_refused", "21617"),
    "misconfigured": Outcome("misconfigured", "20003", "wrong token"),
    "in_doubt": Outcome("in_doubt", "timeout"),
}


def accept(service: Service, count: int = 1, **fields: Any) -> list[UUID]:
    """Accept ``count`` messages, one transaction each as the API does; their ids."""
    found = []
    for number in range(count):
        given = {"channel": "sms", "to": "+56912345678", "text": f"no. {number}", **fields}
        (accepted,) = intake.accept([intake.draft(service, given)], origin=Origin.API)
        found.append(accepted.id)
    return found


def claim(
    n: int = 250,
    *,
    channel: str = "sms",
    lane: Lane = Lane.BULK,
    ids: Sequence[UUID] = (),
    solitary: bool = False,
    room: Room = UNLIMITED,
) -> list[Claimed]:
    """Claim as a worker does, in a transaction of its own."""
    with transaction.atomic(), connection.cursor() as cursor:
        wanted = request(cursor, n, channel=channel, lane=lane)
        wanted = replace(wanted, ids=tuple(str(message_id) for message_id in ids), solitary=solitary, room=room)
        return Claimer().claim(cursor, wanted).messages


@contextmanager
def as_the_engine_reads() -> Iterator[Cursor]:
    """A cursor in a transaction of Django's connection, which gives JSON parsed, as the engine's own connections do."""
    with transaction.atomic(), prepared() as cursor:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        yield cursor


def request(cursor: Cursor, n: int = 250, *, channel: str = "sms", lane: Lane = Lane.BULK) -> Request:
    """What a worker asks for."""
    return Request(
        channel=channel,
        lane=lane,
        n=n,
        lease_seconds=LEASE_SECONDS,
        worker="worker-of-a-test",
        task_id="task-of-a-test",
        pauses=pausing.read(cursor),
    )


def begun(claimed: Sequence[Claimed]) -> Begun:
    """Commit that the calls of ``claimed`` (one claim) begin."""
    with transaction.atomic(), connection.cursor() as cursor:
        return begin(cursor, claimed[0].token, [message.id for message in claimed])


def record(claimed: Claimed, outcome: Outcome, policy: Policy | None = None) -> Decision | None:
    """Decide and settle one outcome; None when the lease was no longer its own."""
    history = History(claimed.tries, claimed.blind_count, claimed.expires_at, claimed.number)
    decision = decide(outcome, history, policy or Policy(), now())
    settlement = Settlement(
        claimed.id, claimed.number, claimed.token, claimed.account_id, claimed.opened_at, outcome, decision, at=now()
    )
    with transaction.atomic(), connection.cursor() as cursor:
        mine = settle(cursor, [settlement])
    return decision if mine else None


def send(message_id: UUID, outcome: Outcome = ACCEPTED, policy: Policy | None = None) -> Decision | None:
    """One whole attempt of a message that is due."""
    (claimed,) = claim(ids=[message_id])
    begun([claimed])
    return record(claimed, outcome, policy)


def swept() -> int:
    """End the leases that ran out, expire, see to blocked heads, unblock: what the relay does every five seconds."""
    done = 0
    for job in (sweep.end_leases, sweep.expire, BlockedHeads().look, Heads().unblock):
        with transaction.atomic(), connection.cursor() as cursor:
            done += job(cursor)
    return done


def receive(message: Message, kind: ReceiptKind, event_id: str = "", **fields: Any) -> int:
    """Store and apply one receipt that names the message; how many were applied."""
    receipt = Receipt(event_id or f"{message.pk}:{kind}", kind, message_id=str(message.pk), **fields)
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(message.account_id, [receipt])])
        return receipts.apply(cursor).applied


def now() -> Any:
    """The database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT chaski_now()")
        return cursor.fetchone()[0]


@contextmanager
def later(by: timedelta) -> Iterator[None]:
    """Run the block as if ``by`` had passed: the database's clock, which decides everything, is moved."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(nullif(current_setting('chaski.clock_offset', true), ''), '0')::interval")
        before = cursor.fetchone()[0]
        cursor.execute("SELECT set_config('chaski.clock_offset', %s, false)", [str(before + by)])
        try:
            yield
        finally:
            cursor.execute("SELECT set_config('chaski.clock_offset', %s, false)", [str(before)])


def message(message_id: UUID) -> Message:
    """The row as it is now."""
    return Message.objects.get(pk=message_id)


def pending(message_id: UUID) -> Pending | None:
    """Its place in the queue, if it has one."""
    return Pending.objects.filter(pk=message_id).first()


def account_of(message_id: UUID) -> Account:
    """The account that carries it."""
    return Account.objects.get(pk=message(message_id).account_id)
