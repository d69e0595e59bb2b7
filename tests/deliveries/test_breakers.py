"""Circuit breakers in a whole engine: what a provider that is down costs, and how it comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from uuid_utils.compat import uuid7

from channels.base import Transient
from channels.sandbox import Sandbox
from chaski.vocabulary import Lane
from deliveries import diagnosis, intake, pausing
from deliveries.conf import timings
from deliveries.delivery import breakers
from deliveries.delivery.breakers import ANSWERS, Breakers
from deliveries.delivery.engine import Engine
from deliveries.models import Account, Attempt, Breaker, BreakerEvent, Message, Pending
from deliveries.models.messages import Origin
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Vendor:
    """The sandbox's vendor, which may be down for accounts that start with "ill"."""

    def __init__(self) -> None:
        self.down = True
        self.calls: list[str] = []


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    found = Vendor()
    send = Sandbox.send

    async def answer(self: Sandbox, outbound: Any) -> Any:
        found.calls.append(outbound.to)
        if found.down and outbound.to.startswith("+561"):
            raise Transient("http_503", "down")
        return await send(self, outbound)

    monkeypatch.setattr(Sandbox, "send", answer)
    return found


@pytest.fixture
def draining(worker: Engine) -> Iterator[None]:
    """The engine drains SMS until the test is over, as bell after bell does."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
            over.wait(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join(5)


def accept(shop: Caller, count: int, account: str, to: str, **fields: Any) -> None:
    given = {"channel": "sms", "to": to, "text": "hello", "account": account, **fields}
    intake.accept([intake.draft(shop.service, given) for _ in range(count)], origin=Origin.API)


def story(account: Account) -> list[str]:
    found = BreakerEvent.objects.filter(account_id=account.pk).order_by("pk")
    return list(found.values_list("change", flat=True))


def test_an_account_that_is_down_waits_is_tried_and_comes_back(
    shop: Caller, vendor: Vendor, draining: None, client: Client
) -> None:
    ill, well = make_account("sms", name="ill"), make_account("sms", name="well")
    accept(shop, 600, "ill", "+56111111111")
    wait_for(lambda: Breaker.objects.filter(account_id=ill.pk).exists(), 10, "the breaker")
    wait_for(lambda: "probed" in story(ill), 10, "a probe that failed")
    wait_for(lambda: not Pending.objects.exclude(lease_until=None).exists(), 5, "an end of what was under way")
    untried = Message.objects.filter(attempt_count=0)
    assert untried.count() > 100, "waiting costs no attempt"

    waiting = str(untried.last().pk)  # type: ignore[union-attr]

    def shown() -> tuple[str, str]:
        found = client.get(f"/api/v1/messages/{waiting}", headers=shop.headers).json()
        return found["status"], found["waiting_for"]

    wait_for(lambda: shown() == ("queued", "breaker"), 5, "what it waits for, said by a message that is no probe")
    assert any("its messages wait" in finding.found for finding in diagnosis.examine() if finding.check == "account")

    accept(shop, 200, "well", "+56222222222")
    wait_for(lambda: vendor.calls.count("+56222222222") == 200, 10, "the other account, which is well")

    tried = len(vendor.calls)
    vendor.down = False
    wait_for(lambda: not Pending.objects.exists(), 30, "all of them")
    assert len(vendor.calls) > tried
    told = story(ill)
    assert told[0] == "opened"
    assert told[-1] == "closed"
    assert set(told[1:-1]) == {"probed"}
    assert story(well) == []
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}


def test_a_few_failures_among_many_open_nothing(shop: Caller, vendor: Vendor, draining: None) -> None:
    account = make_account("sms", name="busy")
    accept(shop, 10, "busy", "+56111111111")
    accept(shop, 100, "busy", "+56222222222")
    wait_for(lambda: Attempt.objects.filter(outcome="transient").count() >= 10, 10, "the failures")
    wait_for(lambda: vendor.calls.count("+56222222222") == 100, 10, "the others")
    assert story(account) == []


def trip(found: Breakers, account_id: int) -> None:
    for _ in range(ANSWERS):
        found.answered(account_id, uuid7(), "http_503", bad=True)
    with connection.cursor() as cursor:
        assert found.flush(cursor)


def paused() -> pausing.Pauses:
    with connection.cursor() as cursor:
        return pausing.read(cursor)


def test_two_processes_open_one_breaker_and_one_of_them_probes() -> None:
    here, there = Breakers(), Breakers()
    trip(here, 7)
    trip(there, 7)
    assert list(BreakerEvent.objects.values_list("account_id", "change")) == [(7, "opened")]
    assert 0 < paused().breakers[7] <= breakers.FIRST_SECONDS
    Breaker.objects.update(probe_at="2000-01-01T00:00:00Z")
    with connection.cursor() as cursor:
        probe = uuid7()
        assert here.take(cursor, [7, 8]) == {7}
        assert there.take(cursor, [7]) == frozenset()
        here.claimed(cursor, {7}, [(7, probe)])
        here.answered(7, uuid7(), "http_503", bad=True)
        assert not here.flush(cursor), "a call from before is no probe"
        here.answered(7, probe, "http_503", bad=True)
        here.flush(cursor)
        assert paused().breakers[7] > 0
        Breaker.objects.update(probe_at="2000-01-01T00:00:00Z")
        assert there.take(cursor, [7]) == {7}
        there.claimed(cursor, {7}, [(7, probe)])
        there.answered(7, probe, "", bad=False)
        there.flush(cursor)
    assert paused().breakers == {}
    assert list(BreakerEvent.objects.order_by("pk").values_list("change", flat=True)) == ["opened", "probed", "closed"]


@pytest.mark.parametrize("way", ["nothing was due", "not sent after all"])
def test_a_probe_that_is_not_sent_is_somebodys_again_in_a_moment(way: str) -> None:
    found, probe = Breakers(), uuid7()
    trip(found, 7)
    Breaker.objects.update(probe_at="2000-01-01T00:00:00Z")
    with connection.cursor() as cursor:
        found.take(cursor, [7])
        found.claimed(cursor, {7}, [] if way == "nothing was due" else [(7, probe)])
        found.left(7, probe)
        found.flush(cursor)
    assert paused().breakers[7] <= breakers.UNUSED_SECONDS * timings().scale


def test_our_own_stall_opens_nothing() -> None:
    found = Breakers()
    for _ in range(2 * ANSWERS):
        found.answered(7, uuid7(), "no_time_left", bad=True)
    assert not found.due


def test_the_probe_goes_to_the_lane_that_has_something_due(shop: Caller, vendor: Vendor, worker: Engine) -> None:
    account = make_account("sms", name="ill")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for lane in ("urgent", "normal"):
        accept(shop, 1, "ill", "+56222222222", priority=lane, send_at=later)
    accept(shop, 1, "ill", "+56222222222", priority="bulk")
    Breaker.objects.create(account_id=account.pk, probe_at="2000-01-01T00:00:00Z")
    worker.drain("sms", Lane.BULK, (), "task-of-a-test")
    assert vendor.calls == ["+56222222222"]
    assert not Breaker.objects.exists(), "and its answer is written before the task ends"


def test_each_failed_probe_waits_longer_up_to_a_limit() -> None:
    found, waits = Breakers(), []
    trip(found, 7)
    for _ in range(7):
        Breaker.objects.update(probe_at="2000-01-01T00:00:00Z")
        with connection.cursor() as cursor:
            found.take(cursor, [7])
            found.claimed(cursor, {7}, [(7, probe := uuid7())])
            found.answered(7, probe, "http_503", bad=True)
            found.flush(cursor)
        waits.append(paused().breakers[7])
    scale = timings().scale
    assert waits == [pytest.approx(seconds * scale, rel=0.1) for seconds in (4, 8, 16, 30, 30, 30, 30)]


def test_what_was_read_of_answers_is_not_lost_where_the_database_is_away() -> None:
    found = Breakers()
    for _ in range(ANSWERS):
        found.answered(7, uuid7(), "http_503", bad=True)

    class Away:
        def execute(self, *_: object) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        found.flush(Away())  # type: ignore[arg-type]
    with connection.cursor() as cursor:
        assert found.flush(cursor)
    assert Breaker.objects.filter(account_id=7).exists()
