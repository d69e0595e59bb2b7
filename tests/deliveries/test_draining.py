"""One task at work in a whole engine: it takes all that is due though windows are small, and rings where it must stop."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels.sandbox import Sandbox
from chaski.vocabulary import Lane
from deliveries import intake
from deliveries.conf import timings
from deliveries.delivery import engine as engines
from deliveries.delivery.account_window import START
from deliveries.delivery.engine import Engine
from deliveries.models import Account, Attempt, Message, Pending
from deliveries.models.messages import Origin
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
MANY = 4 * START


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's time is not up because the machine is busy."""
    monkeypatch.setattr(engines, "timings", lambda: replace(timings(), task_run_seconds=30.0))


def accept(shop: Caller, count: int, **fields: Any) -> None:
    given = {"channel": "sms", "to": "+56912345678", "text": "hello", **fields}
    intake.accept([intake.draft(shop.service, given) for _ in range(count)], origin=Origin.API)


def test_one_task_drains_more_than_an_account_may_have_under_way(shop: Caller, worker: Engine) -> None:
    make_account("sms", options={"latency_ms": "20"})
    accept(shop, MANY)
    tally = worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
    assert tally.claimed == MANY
    wait_for(lambda: not Pending.objects.exists(), 10, "the last record")
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}
    assert Attempt.objects.count() == MANY


def test_services_that_share_an_account_are_drained_by_one_task_too(
    shop: Caller, other: Caller, worker: Engine, rung: list[tuple[str, Lane]]
) -> None:
    """One of them has something for later, so that it has a turn and takes nothing."""
    make_account("sms", options={"latency_ms": "20"})
    accept(other, 1, send_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    accept(shop, MANY)
    assert worker.drain("sms", Lane.NORMAL, (), "task-of-a-test").claimed == MANY


def test_a_task_whose_time_is_up_lets_another_go_on(
    shop: Caller, worker: Engine, rung: list[tuple[str, Lane]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "timings", lambda: replace(timings(), task_run_seconds=0.05, help_seconds=60.0))
    make_account("sms", options={"latency_ms": "500"})
    accept(shop, MANY)
    tally = worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
    assert tally.claimed < MANY
    assert rung[-1] == ("sms", Lane.NORMAL)
    wait_for(lambda: not worker.in_flight(), 10, "the records")


def test_a_slow_account_leaves_the_others_their_places(shop: Caller, worker: Engine) -> None:
    make_account("sms", name="slow", options={"latency_ms": "3000"})
    make_account("sms", name="quick")
    accept(shop, MANY, account="slow")
    accept(shop, MANY, account="quick")
    quick = Account.objects.get(name="quick").pk
    tally = worker.drain("sms", Lane.NORMAL, (), "task-of-a-test")
    assert tally.claimed >= MANY
    assert not Pending.objects.filter(account_id=quick, lease_until=None).exists(), "all of the quick one's went out"
    assert Pending.objects.exclude(account_id=quick).exists(), "while the slow one still has some"
    wait_for(lambda: not worker.in_flight(), 10, "the records")


def test_an_account_is_bounded_by_its_own_provider_and_not_by_another_of_its_channel(
    shop: Caller, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushover, a push provider too, takes two calls at a time."""
    under_way, most, send = 0, 0, Sandbox.send

    async def counted(self: Sandbox, outbound: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await send(self, outbound)
        finally:
            under_way -= 1

    monkeypatch.setattr(Sandbox, "send", counted)
    make_account("push", options={"latency_ms": "50"})
    accept(shop, 50, channel="push", to="a-token")
    worker.drain("push", Lane.NORMAL, (), "task-of-a-test")
    wait_for(lambda: not Pending.objects.exists(), 10, "the last record")
    assert most > 10
