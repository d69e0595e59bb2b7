"""After an outage of the database every lease holds once more, so that workers record before the sweep judges; never else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from deliveries import ledger
from deliveries.conf import timings
from deliveries.delivery import leases, sweep
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.leases import lease_seconds, watch
from deliveries.models import Watch
from deliveries.relay import Relay
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)
OVER = timedelta(seconds=steps.LEASE_SECONDS + 1)
ONE_SWEEP = timedelta(seconds=timings().sweep_seconds)


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")
    make_account("email", name="post")


@pytest.fixture
def relay() -> Iterator[EngineConnection]:
    """The connection of another relay."""
    opened = EngineConnection()
    yield opened
    opened.close()


def looked() -> int:
    """A relay looks, as before each sweep; how many leases it prolonged."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            return watch(cursor)
        finally:
            cursor.execute("COMMIT")


def away(seconds: float | None = None, *, restarted: bool = False) -> None:
    """The mark as a relay finds it after an outage that long, or after a restart."""
    changed: dict[str, datetime] = {}
    mark = Watch.objects.get()
    if seconds is not None:
        changed["seen_at"] = mark.seen_at - timedelta(seconds=seconds)
    if restarted:
        changed["server_started_at"] = mark.server_started_at - timedelta(hours=1)
    Watch.objects.update(**changed)


def under_way(service: Caller, count: int = 1, **fields: str) -> list[UUID]:
    """Messages whose calls have begun."""
    ids = steps.accept(service.service, count, **fields)
    steps.begun(steps.claim(channel=fields.get("channel", "sms")))
    return ids


def left_of(message_id: UUID) -> float:
    """Seconds until its lease ends."""
    found = steps.pending(message_id)
    assert found is not None
    assert found.lease_until is not None
    left: timedelta = found.lease_until - steps.now()
    return left.total_seconds()


LONG = timings().outage_seconds + 0.5


@pytest.mark.parametrize("outage", [{"seconds": LONG}, {"restarted": True}])
def test_leases_that_ended_while_the_database_was_away_hold_once_more_and_are_then_judged(
    shop: Caller, outage: dict[str, float]
) -> None:
    (sms,) = under_way(shop)
    (email,) = under_way(shop, channel="email", to="ana@example.com")
    (waiting,) = steps.accept(shop.service)
    looked()
    with steps.later(OVER):
        away(**outage)  # type: ignore[arg-type]
        assert steps.swept() == 0, "nothing is judged before the leases are prolonged"
        assert looked() == 2
        assert steps.swept() == 0
        assert left_of(sms) == pytest.approx(lease_seconds("sms"), abs=2)
        assert left_of(email) == pytest.approx(lease_seconds("email"), abs=2)
        assert lease_seconds("email") > lease_seconds("sms"), "each has its provider's"
        assert steps.pending(waiting).lease_until is None  # type: ignore[union-attr]
    with steps.later(OVER + timedelta(seconds=lease_seconds("sms")) + ONE_SWEEP):
        assert steps.swept() == 1, "its worker did not come back"
        assert steps.message(sms).in_doubt_count == 1
        assert steps.message(email).in_doubt_count == 0


def test_a_worker_that_comes_back_after_the_outage_records_as_if_nothing_had_been(shop: Caller) -> None:
    steps.accept(shop.service)
    (claimed,) = steps.claim()
    steps.begun([claimed])
    looked()
    with steps.later(OVER):
        away(LONG)
        steps.swept()
        looked()
        steps.swept()
        assert steps.record(claimed, steps.ACCEPTED) is not None
    message = steps.message(claimed.id)
    assert (message.status, message.in_doubt_count) == ("sent", 0)


def test_in_normal_operation_a_lease_is_judged_at_the_first_sweep_after_its_end(shop: Caller) -> None:
    (message_id,) = under_way(shop)
    for seconds in (0.0, timings().sweep_seconds, 2 * timings().sweep_seconds):
        assert looked() == 0
        away(seconds)  # two sweeps late is no outage
    with steps.later(OVER):
        assert looked() == 0
        assert steps.swept() == 1
    assert steps.message(message_id).in_doubt_count == 1
    assert Watch.objects.get().prolonged_at is None


def test_a_cold_start_prolongs_nothing(shop: Caller) -> None:
    (message_id,) = under_way(shop)
    with steps.later(OVER):
        assert looked() == 0
        assert left_of(message_id) < 0
        assert steps.swept() == 1


def test_one_outage_prolongs_once_however_often_and_from_wherever_one_looks(
    shop: Caller, relay: EngineConnection
) -> None:
    (message_id,) = under_way(shop)
    looked()
    with steps.later(OVER):
        away(LONG, restarted=True)
        assert looked() == 1
        until = steps.pending(message_id).lease_until  # type: ignore[union-attr]
        for _ in range(2):
            with relay.transaction() as cursor:
                assert watch(cursor) == 0
            assert looked() == 0
        assert steps.pending(message_id).lease_until == until  # type: ignore[union-attr]


def test_a_lease_that_is_younger_than_the_outage_is_not_shortened(shop: Caller) -> None:
    looked()
    away(LONG)
    (message_id,) = under_way(shop)
    assert looked() == 1
    assert left_of(message_id) == pytest.approx(steps.LEASE_SECONDS, abs=2)


def test_two_relays_at_once_do_it_once_and_one_that_is_killed_in_the_middle_leaves_it_to_the_other(
    shop: Caller, relay: EngineConnection
) -> None:
    (message_id,) = under_way(shop)
    looked()
    with steps.later(OVER):
        away(LONG)
        with pytest.raises(ZeroDivisionError), relay.transaction() as cursor:  # noqa: PT012 - all of it is the relay's
            assert watch(cursor) == 1
            begun = time.monotonic()
            assert looked() == 0, "it is being done"
            assert steps.swept() == 0, "and nobody judges meanwhile"
            assert time.monotonic() - begun < 1, "nor waits"
            raise ZeroDivisionError  # it never commits
        assert left_of(message_id) < 0
        assert steps.swept() == 0
        assert looked() == 1
        assert left_of(message_id) > 0


def test_whoever_holds_a_row_is_waited_for_and_until_then_nothing_is_judged(
    shop: Caller, relay: EngineConnection
) -> None:
    """A connection that was cut off may hold its rows until the server notices."""
    held, _other = under_way(shop, 2)
    looked()
    with steps.later(OVER):
        away(LONG)
        with relay.transaction() as cursor:
            cursor.execute("SELECT 1 FROM pending WHERE message_id = %s FOR UPDATE", [held])
            begun = time.monotonic()
            with pytest.raises(Exception, match="lock timeout") as error:
                looked()
            assert isinstance(error.value.__cause__, psycopg.errors.LockNotAvailable)
            assert time.monotonic() - begun < 3, "no lock is held or awaited for long"
            assert steps.swept() == 0
        assert looked() == 2


def test_the_ledger_finds_nothing_wrong_with_prolonged_leases(shop: Caller) -> None:
    under_way(shop, 3)
    looked()
    with steps.later(OVER):
        away(LONG)
        looked()
        assert [violation for violation in ledger.check().violations if violation.invariant == 4] == []


def test_a_sweep_that_was_on_its_way_when_the_server_froze_judges_nothing(shop: Caller) -> None:
    """The guard is part of the statement that takes the leases, not a question asked before it."""
    under_way(shop)
    looked()
    away(LONG)
    with steps.later(OVER), connection.cursor() as cursor:
        assert sweep.end_leases(cursor) == 0


def test_a_relay_leaves_the_mark_however_long_its_tick_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow tick, with thousands of callbacks say, must not look like an outage: else nothing would ever be judged."""
    relay, stuck = Relay(), threading.Event()
    monkeypatch.setattr(Relay, "tick", lambda _self: stuck.wait(20))
    running = threading.Thread(target=relay.run)
    running.start()
    try:
        deadline = time.monotonic() + 15
        seen: set[datetime] = set()
        while len(seen) < 3:
            seen |= set(Watch.objects.values_list("seen_at", flat=True))
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        relay.stopping.set()
        stuck.set()
        running.join(20)
    assert not running.is_alive()


def test_each_tick_with_a_sweep_looks_before_it_judges(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(leases, "watch", lambda _cursor: order.append("watch") or 0)
    for job in ("end_leases", "expire"):
        monkeypatch.setattr(sweep, job, lambda _cursor, job=job: order.append(job) or 0)
    relay = Relay()
    relay.tick()
    relay.close()
    assert order[:2] == ["watch", "end_leases"]
