"""Everything that moves messages locks in one order, so that no two of them end in a deadlock. Two real connections each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction

from channels.base import Accepted, Receipt, ReceiptKind
from deliveries import acts, receipts
from deliveries.conf import Limits
from deliveries.delivery import inquiries, sweep
from deliveries.delivery.claim import Claimed
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.settle import Settlement, settle
from deliveries.models import Attempt
from deliveries.models import Receipt as Kept
from deliveries.retry import Decision, History, Policy, decide
from tests.deliveries import steps
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other_side(shop: Caller) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The connection of whoever moves the message at the same time."""
    make_account("sms")
    engine = EngineConnection()
    yield engine._open()
    engine.close()


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[Future[object]]:
    """``act`` in a thread with a connection of its own."""

    def run() -> object:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction sees the activity of its first look
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


def store(message_id: UUID, *kinds: ReceiptKind) -> None:
    account_id = steps.message(message_id).account_id
    came = [
        Receipt(f"{message_id} {kind}", kind, message_id=str(message_id), provider_message_id="p9") for kind in kinds
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(account_id, came)])


def apply_receipts() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        return receipts.apply(cursor).applied


def frozen(claimed: Claimed) -> Callable[[], object]:
    """Its worker froze beyond its lease, the sweep made it due again, and now it records."""
    with steps.later(timedelta(seconds=61)):
        steps.swept()
    return lambda: steps.record(claimed, steps.ACCEPTED)


def doubtful(shop: Caller) -> UUID:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"], Policy(hold_in_doubt=True))
    return message_id


def a_verdict(shop: Caller) -> tuple[UUID, Callable[[], object]]:
    message_id = doubtful(shop)
    message = steps.message(message_id)
    return message_id, lambda: acts.resolve(message, "failed", actor="somebody", reason="asked")


def a_late_record(shop: Caller) -> tuple[UUID, Callable[[], object]]:
    ids = steps.accept(shop.service)
    (claimed,) = steps.claim(ids=ids)
    steps.begun([claimed])
    return claimed.id, frozen(claimed)


def a_cancel(shop: Caller) -> tuple[UUID, Callable[[], object]]:
    (message_id,) = steps.accept(shop.service)
    message = steps.message(message_id)
    return message_id, lambda: acts.cancel(message, actor="somebody")


def an_answer(shop: Caller) -> tuple[UUID, Callable[[], object]]:
    """The provider was asked, and has the message."""
    policy = Policy(ask_after_seconds=0)
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"], policy)
    with transaction.atomic(), connection.cursor() as cursor:
        (asked,) = inquiries.take(cursor)

    def concluded() -> object:
        with transaction.atomic(), connection.cursor() as cursor:
            return inquiries.conclude(cursor, asked, Accepted("p9"), policy)

    return message_id, concluded


@pytest.mark.parametrize("who", [a_verdict, a_late_record, a_cancel, an_answer])
def test_whoever_moves_a_message_waits_for_its_place_in_the_queue_before_it_locks_anything_else(
    who: Callable[[Caller], tuple[UUID, Callable[[], object]]],
    shop: Caller,
    other_side: psycopg.Connection[tuple[object, ...]],
) -> None:
    message_id, act = who(shop)
    with other_side.transaction():
        other_side.execute("SELECT 1 FROM pending WHERE message_id = %s FOR UPDATE", [message_id])
        with meanwhile(act) as done:
            wait_for(somebody_waits_for_a_lock, 5, "the wait for the place")
            # What a settlement, an expiry or a receipt locks next. A holder of one of them would be a deadlock.
            other_side.execute("UPDATE attempt SET detail = detail WHERE message_id = %s", [message_id])
            other_side.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [message_id])
            assert not done.done()
            other_side.execute("COMMIT")
            done.result(10)


def test_what_a_worker_learned_is_kept_though_its_record_waited_for_the_sweep(shop: Caller) -> None:
    """The sweep closes the attempt while the record waits for its place: what that statement saw before is not the truth."""
    make_account("sms")
    ids = steps.accept(shop.service)
    (claimed,) = steps.claim(ids=ids)
    steps.begun([claimed])

    def record() -> None:
        try:
            steps.record(claimed, steps.ACCEPTED)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as cursor, steps.later(timedelta(seconds=61)):
            assert sweep.end_leases(cursor) == 1
            done = pool.submit(record)
            wait_for(somebody_waits_for_a_lock, 5, "the wait for the place")
        done.result(10)
    late = Attempt.objects.get().late
    assert late is not None
    assert late["outcome"] == "accepted"
    assert steps.message(claimed.id).status == "sent"


def test_a_successor_that_somebody_holds_is_not_waited_for_but_let_go_by_the_sweep(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]]
) -> None:
    first, second = steps.accept(shop.service, 2, ordering_key="cart-1")
    with other_side.transaction():
        other_side.execute("SELECT 1 FROM pending WHERE message_id = %s FOR UPDATE", [second])
        acts.cancel(steps.message(first), actor="somebody")
        steps.swept()
        waiting = steps.pending(second)
        assert waiting is not None
        assert waiting.blocked
    assert steps.swept() == 1
    assert [claimed.id for claimed in steps.claim()] == [second]


LOCKED = {
    "its place": "SELECT 1 FROM pending WHERE message_id = %s FOR UPDATE",
    "the message": "SELECT 1 FROM message WHERE id = %s FOR UPDATE",
}


@pytest.mark.parametrize("sql", LOCKED.values(), ids=LOCKED)
def test_a_message_that_somebody_holds_holds_up_its_own_receipts_alone(
    sql: str, shop: Caller, other_side: psycopg.Connection[tuple[object, ...]]
) -> None:
    held, free = doubtful(shop), doubtful(shop)
    for message_id in (held, free):
        store(message_id, ReceiptKind.DELIVERED)
    with other_side.transaction():
        other_side.execute(sql, [held])
        assert apply_receipts() == 1
    assert (steps.message(free).status, steps.message(held).status) == ("delivered", "in_doubt")
    assert apply_receipts() == 0, "it is looked at again after a moment, so that it stands before no others"
    with steps.later(timedelta(seconds=1)):
        assert apply_receipts() == 1
    assert steps.message(held).status == "delivered"
    assert steps.pending(held) is None


def test_receipts_of_a_message_that_is_held_for_long_are_looked_at_every_few_seconds(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]]
) -> None:
    held = doubtful(shop)
    store(held, ReceiptKind.DELIVERED)
    with other_side.transaction(), steps.later(timedelta(minutes=5)):
        other_side.execute(LOCKED["the message"], [held])
        apply_receipts()
        assert 4 < (Kept.objects.get().look_at - steps.now()).total_seconds() <= 5


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ((ReceiptKind.SENT, ReceiptKind.DELIVERED), "delivered"),
        ((ReceiptKind.UNDELIVERED,), "undelivered"),
        ((ReceiptKind.READ,), "read"),
    ],
)
def test_receipts_that_come_while_their_send_is_recorded_are_not_lost(
    kinds: tuple[ReceiptKind, ...], status: str, shop: Caller, other_side: psycopg.Connection[tuple[object, ...]]
) -> None:
    (claimed,) = steps.claim(ids=steps.accept(shop.service))
    steps.begun([claimed])
    store(claimed.id, *kinds)
    decided = decide(steps.ACCEPTED, History(0, 0, claimed.expires_at, 1), Policy(), steps.now())
    with other_side.transaction(), other_side.cursor() as cursor:
        settle(cursor, [settlement(claimed, decided)])
        with meanwhile(apply_receipts) as applied:
            applied.result(10)
    with steps.later(timedelta(seconds=1)):
        apply_receipts()
    assert steps.message(claimed.id).status == status


def settlement(claimed: Claimed, decided: Decision) -> Settlement:
    opened, account = claimed.opened_at, claimed.account_id
    return Settlement(claimed.id, claimed.number, claimed.token, account, opened, steps.ACCEPTED, decided)


@pytest.mark.parametrize("table", ["message WHERE id", "pending WHERE message_id", "attempt WHERE message_id"])
def test_a_row_that_somebody_holds_keeps_no_other_lease_from_being_ended(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]], table: str
) -> None:
    held, *others = steps.accept(shop.service, 3)
    steps.begun(steps.claim())
    with steps.later(timedelta(seconds=61)):
        with other_side.transaction():
            other_side.execute(f"SELECT 1 FROM {table} = %s FOR UPDATE", [held])
            assert steps.swept() == 2
            assert {steps.message(each).in_doubt_count for each in others} == {1}
            assert steps.message(held).in_doubt_count == 0
        assert steps.swept() == 1
    assert steps.message(held).in_doubt_count == 1


@pytest.mark.parametrize("table", ["message WHERE id", "pending WHERE message_id"])
def test_a_row_that_somebody_holds_keeps_no_other_from_expiring(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]], table: str
) -> None:
    held, other = steps.accept(shop.service, 2)
    with steps.later(timedelta(hours=5)):
        with other_side.transaction():
            other_side.execute(f"SELECT 1 FROM {table} = %s FOR UPDATE", [held])
            assert steps.swept() == 1
            assert (steps.message(held).status, steps.message(other).status) == ("queued", "expired")
        assert steps.swept() == 1
    assert steps.message(held).status == "expired"


@pytest.fixture
def two_rows_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "limits", lambda: Limits(claim_rows=2))


#: As many as one sweep takes, and the oldest, so that they come first.
EARLIER = [
    "SELECT 1 FROM message WHERE id = ANY(%s) FOR UPDATE",
    "SELECT 1 FROM pending WHERE message_id = ANY(%s) FOR UPDATE",
    "DELETE FROM message WHERE id = ANY(%s)",
]


@pytest.mark.usefixtures("two_rows_a_sweep")
@pytest.mark.parametrize("sql", EARLIER)
def test_a_whole_sweep_of_rows_that_somebody_holds_keeps_no_other_lease_from_being_ended(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]], sql: str
) -> None:
    *held, other = steps.accept(shop.service, 3)
    steps.begun(steps.claim())
    with steps.later(timedelta(seconds=61)), other_side.transaction():
        other_side.execute(sql, [held])
        assert steps.swept() == 1
    assert steps.message(other).in_doubt_count == 1


@pytest.mark.usefixtures("two_rows_a_sweep")
@pytest.mark.parametrize("sql", EARLIER)
def test_a_whole_sweep_of_rows_that_somebody_holds_keeps_no_other_from_expiring(
    shop: Caller, other_side: psycopg.Connection[tuple[object, ...]], sql: str
) -> None:
    *held, other = steps.accept(shop.service, 3)
    with steps.later(timedelta(hours=5)), other_side.transaction():
        other_side.execute(sql, [held])
        assert steps.swept() == 1
    assert steps.message(other).status == "expired"
