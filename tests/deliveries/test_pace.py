"""Rates in a whole engine: what is sent when, and what waiting costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import Client

from channels.base import Accepted, ReceiptKind
from channels.rates import Rate
from channels.sandbox import Sandbox
from chaski.vocabulary import Lane
from deliveries import cache, intake
from deliveries.delivery.engine import Engine
from deliveries.delivery.pace import Pace
from deliveries.models import Attempt, Message, Pending
from deliveries.models.messages import Origin
from deliveries.pacing import LEAD_SECONDS, waits
from tests.deliveries import steps
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
SMS, OTHER_SMS = "+56912345678", "+56987654321"


@pytest.fixture(autouse=True)
def _free_buckets() -> None:
    client = redis.Redis.from_url(cache.redis_url(settings.CHASKI_CACHE_URL))
    client.flushdb()
    client.set("chaski:pace:epoch", 1)
    client.close()


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """When each call began, and to whom."""
    found: list[tuple[float, str]] = []
    send = Sandbox.send

    async def noted(self: Sandbox, outbound: Any) -> Any:
        found.append((time.monotonic(), outbound.to))
        return await send(self, outbound)

    monkeypatch.setattr(Sandbox, "send", noted)
    return found


@pytest.fixture
def draining(worker: Engine) -> Iterator[Callable[[str], None]]:
    """Lets the engine drain a channel until the test is over, as bell after bell does."""
    over, threads = threading.Event(), []

    def drain(channel: str) -> None:
        def run() -> None:
            while not over.is_set():
                worker.drain(channel, Lane.NORMAL, (), "task-of-a-test")
                over.wait(0.05)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield drain
    over.set()
    for thread in threads:
        thread.join(5)


def accept(shop: Caller, count: int, to: str = SMS, channel: str = "sms", **fields: Any) -> None:
    given = {"channel": channel, "to": to, "text": "hello", **fields}
    intake.accept([intake.draft(shop.service, given) for _ in range(count)], origin=Origin.API)


def emptied() -> bool:
    return not Pending.objects.exists()


def test_an_account_sends_as_fast_as_its_rate_and_no_faster(
    shop: Caller, draining: Callable[[str], None], sends: list[tuple[float, str]]
) -> None:
    make_account("sms", options={"rate": "100/s"})
    accept(shop, 150)
    draining("sms")
    wait_for(emptied, 15, "the drain")
    moments = [moment for moment, _ in sends]
    assert len(moments) == 150
    for start in moments:
        assert sum(1 for moment in moments if start <= moment < start + 0.5) <= 50 * 1.1 + 1
    assert moments[-1] - moments[0] < 1.49 / 0.9
    assert set(Attempt.objects.values_list("message_id", "number")) == {
        (message_id, 1) for message_id in Message.objects.values_list("pk", flat=True)
    }, "waiting costs no attempt"


def test_an_account_whose_allowance_is_used_up_rests_before_it_is_refused(
    shop: Caller, draining: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor takes the first and says that nothing is left for a second: it is sent, and the others wait for that."""
    begun: list[float] = []

    async def takes_one(self: Sandbox, outbound: Any) -> Accepted:
        begun.append(time.monotonic())
        return Accepted(f"sandbox:{outbound.message_id}", rest_seconds=1.0 if len(begun) == 1 else None)

    monkeypatch.setattr(Sandbox, "send", takes_one)
    account = make_account("sms", options={"rate": "20/s"})
    accept(shop, 1)
    draining("sms")
    wait_for(emptied, 5, "the first")
    accept(shop, 3, to=OTHER_SMS)
    wait_for(lambda: waits({account.pk: Rate(20)}).get(account.pk, 0) > 0.2, 0.7, "what other workers are told")
    wait_for(emptied, 5, "the others")
    assert [moment - begun[0] >= 0.99 for moment in begun] == [False, True, True, True]
    assert list(Attempt.objects.values_list("number", "outcome")) == [(1, "accepted")] * 4


def test_a_recipient_is_written_to_at_its_rate_and_keeps_nobody_else_waiting(
    shop: Caller, draining: Callable[[str], None], sends: list[tuple[float, str]]
) -> None:
    make_account("sms", options={"recipient_rate": "2/s"})
    accept(shop, 4)
    accept(shop, 1, OTHER_SMS)
    draining("sms")
    wait_for(lambda: Pending.objects.filter(waiting_for="rate_limit", lease_until=None).exists(), 5, "one that waits")
    wait_for(emptied, 15, "the drain")
    to_one = [moment for moment, to in sends if to == SMS]
    assert len(to_one) == 4
    assert all(later - earlier > 0.45 for earlier, later in pairwise(to_one))
    assert next(moment for moment, to in sends if to == OTHER_SMS) < to_one[1]
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}, "waiting costs no attempt"
    assert set(Message.objects.values_list("attempt_count", flat=True)) == {1}


def test_a_slow_rate_holds_no_task_and_says_what_is_waited_for(
    shop: Caller, worker: Engine, sends: list[tuple[float, str]], client: Client
) -> None:
    make_account("sms", options={"rate": "1/m"})
    accept(shop, 3)
    begun = time.monotonic()
    tally = worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
    assert time.monotonic() - begun < 2.0
    assert tally.claimed == len(sends) == 1
    waiting = str(Pending.objects.values_list("pk", flat=True).first())
    found = client.get(f"/api/v1/messages/{waiting}", headers=shop.headers).json()
    assert (found["status"], found["waiting_for"], found["attempt_count"]) == ("queued", "rate_limit", 0)
    assert found["waiting_until"] > found["created_at"]


def test_a_bell_with_names_keeps_to_the_rate_too(shop: Caller, worker: Engine, sends: list[tuple[float, str]]) -> None:
    make_account("sms", options={"rate": "1/m"})
    accept(shop, 3)
    ids = [str(message_id) for message_id in Pending.objects.values_list("pk", flat=True)]
    worker.drain("sms", Lane.NORMAL, ids, "task-of-a-test")
    assert len(sends) == 1
    assert Attempt.objects.count() == 1


def test_what_is_not_due_uses_up_no_slot(shop: Caller, worker: Engine, sends: list[tuple[float, str]]) -> None:
    make_account("sms", options={"rate": "1/m"})
    accept(shop, 1, send_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    for _ in range(3):
        worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
        time.sleep(2 * LEAD_SECONDS)  # what was taken and not given back has passed by then
    accept(shop, 1, OTHER_SMS)
    worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
    assert [to for _, to in sends] == [OTHER_SMS]


def test_a_lane_with_nothing_due_takes_no_slot_from_the_next(
    shop: Caller, worker: Engine, sends: list[tuple[float, str]]
) -> None:
    make_account("sms", options={"rate": "1/m"})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    accept(shop, 1, send_at=later, priority="urgent")
    accept(shop, 1, send_at=later)
    accept(shop, 1, OTHER_SMS, priority="bulk")
    worker.drain("sms", Lane.BULK, (), "task-of-a-test")
    assert [to for _, to in sends] == [OTHER_SMS]


def test_what_a_receipt_settled_meanwhile_does_not_stay_in_the_queue(shop: Caller) -> None:
    """Between its claim and its way back: its place was left to the claim."""
    make_account("sms")
    (waiting, proved) = steps.accept(shop.service, 2)
    claimed = steps.claim()
    steps.receive(Message.objects.get(pk=proved), ReceiptKind.DELIVERED)
    with connection.cursor() as cursor:
        Pace._leave(cursor, claimed[0].token, {waiting: 5.0, proved: 5.0})
    assert list(Pending.objects.values_list("pk", "waiting_for", "attempt_count", "lease_token")) == [
        (waiting, "rate_limit", 0, None)
    ]
    assert not Attempt.objects.exists()


def test_what_the_sweep_has_ended_is_not_undone(shop: Caller) -> None:
    make_account("sms")
    (message_id,) = steps.accept(shop.service)
    (claimed,) = steps.claim()
    with steps.later(timedelta(seconds=steps.LEASE_SECONDS + 1)):
        with connection.cursor() as cursor:
            Pace._leave(cursor, claimed.token, {message_id: 5.0})
        assert Attempt.objects.get().token == claimed.token
        assert Pending.objects.get().lease_token == claimed.token, "the sweep's to end"


def test_urgent_messages_find_a_slot_before_a_backlog(
    shop: Caller, worker: Engine, draining: Callable[[str], None], sends: list[tuple[float, str]]
) -> None:
    make_account("sms", options={"rate": "20/s"})
    accept(shop, 200)
    draining("sms")
    wait_for(lambda: len(sends) > 5, 5, "the drain")
    asked = time.monotonic()
    accept(shop, 1, OTHER_SMS, priority="urgent")
    worker.drain("sms", Lane.URGENT, (), "task-of-a-test")
    wait_for(lambda: any(to == OTHER_SMS for _, to in sends), 5, "the urgent one")
    assert next(moment for moment, to in sends if to == OTHER_SMS) - asked < 0.6


def test_other_accounts_of_the_channel_are_not_slowed(
    shop: Caller, draining: Callable[[str], None], sends: list[tuple[float, str]]
) -> None:
    make_account("sms", name="slow", options={"rate": "1/m"})
    make_account("sms", name="free")
    accept(shop, 300, account="slow")
    accept(shop, 300, OTHER_SMS, account="free")
    draining("sms")
    wait_for(lambda: sum(1 for _, to in sends if to == OTHER_SMS) == 300, 10, "the free one's messages")


def test_without_the_cache_the_rate_is_kept_by_each_for_its_part(
    shop: Caller,
    draining: Callable[[str], None],
    sends: list[tuple[float, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "client", lambda: None)
    make_account("sms", options={"rate": "50/s"})
    accept(shop, 50)
    draining("sms")
    wait_for(emptied, 15, "the drain")
    assert 0.9 < sends[-1][0] - sends[0][0] < 2.0
