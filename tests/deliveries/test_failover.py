"""Failover: who carries a message while an account is down, what is moved and what is not, and what is written of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from deliveries import acts
from deliveries.delivery import reroute
from deliveries.delivery.reroute import PAGE
from deliveries.models import Account, Breaker, Message, Pause, Pending
from deliveries.models import Reroute as Moved
from deliveries.routing import table
from deliveries.trace import trace
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def first(shop: Caller) -> Account:
    return make_account("sms", name="first", service=shop.service)


@pytest.fixture
def second(shop: Caller) -> Account:
    return make_account("sms", name="second", service=shop.service)


@pytest.fixture
def routed(shop: Caller, first: Account, second: Account) -> None:
    """The second stands in for the first."""
    call_command("route", "set", shop.service.name, "sms", "first", "second:0")
    table.forget()


def goes_down(account: Account, *, since: int = 60, probe_in: float = 60) -> None:
    """Its breaker has been open for ``since`` seconds; it is probed in ``probe_in``."""
    sql = "INSERT INTO breaker (account_id, opened_at, probe_at) VALUES (%s, chaski_now() - %s, chaski_now() + %s)"
    with connection.cursor() as cursor:
        cursor.execute(sql, [account.pk, timedelta(seconds=since), timedelta(seconds=probe_in)])
    table.forget()


def is_stopped(account: Account) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE account SET stopped_at = now(), stopped_reason = 'wrong token' WHERE id = %s", [account.pk]
        )
    table.forget()


def wait(service: Any, count: int = 1, **fields: Any) -> list[UUID]:
    """Messages that came before the account went down, and have waited since."""
    ids = steps.accept(service, count, **fields)
    Pending.objects.filter(pk__in=ids).update(due_at=steps_ago())
    return ids


def steps_ago() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT chaski_now() - interval '1 minute'")
        return cursor.fetchone()[0]


def look() -> int:
    """Look until there is nothing to do; how many messages were moved."""
    before = Moved.objects.count()
    for _ in range(50):
        with steps.as_the_engine_reads() as cursor:
            if not reroute.look(cursor):
                return Moved.objects.count() - before
    raise AssertionError("it finds the same again and again")


def carriers(ids: list[UUID]) -> Counter[str]:
    """The accounts of these messages, which their places in the queue must agree with."""
    pairs = set(Pending.objects.filter(pk__in=ids).values_list("pk", "account_id"))
    assert pairs == set(Message.objects.filter(pk__in=ids).values_list("pk", "account_id"))
    names = dict(Account.objects.values_list("pk", "name"))
    return Counter(names[account_id] for _, account_id in pairs)


# -- at the door


def test_a_stand_in_carries_nothing_while_the_others_are_up(routed: None, shop: Caller) -> None:
    assert carriers(steps.accept(shop.service, 20)) == {"first": 20}


@pytest.mark.parametrize("down", [goes_down, is_stopped])
def test_new_messages_go_to_who_stands_in(routed: None, shop: Caller, first: Account, down: Any) -> None:
    down(first)
    assert carriers(steps.accept(shop.service, 20)) == {"second": 20}


def test_one_new_message_now_and_then_sees_whether_it_is_up_again(routed: None, shop: Caller, first: Account) -> None:
    goes_down(first, probe_in=-1)
    assert carriers(steps.accept(shop.service, 20)) == {"first": 1, "second": 19}
    Breaker.objects.all().delete()
    table.forget()
    assert carriers(steps.accept(shop.service, 5)) == {"first": 5}


def test_where_all_are_down_it_is_as_if_none_were(routed: None, shop: Caller, first: Account, second: Account) -> None:
    for account in (first, second):
        is_stopped(account)
    assert carriers(steps.accept(shop.service, 5)) == {"first": 5}


def test_equals_share_and_stand_in_for_each_other(shop: Caller, first: Account, second: Account) -> None:
    call_command("route", "set", shop.service.name, "sms", "first:1", "second:1")
    table.forget()
    assert set(carriers(steps.accept(shop.service, 60))) == {"first", "second"}
    is_stopped(first)
    assert carriers(steps.accept(shop.service, 20)) == {"second": 20}


def test_a_message_that_names_its_account_goes_there(routed: None, shop: Caller, first: Account) -> None:
    is_stopped(first)
    assert carriers(steps.accept(shop.service, account="first")) == {"first": 1}


# -- what waits already


@pytest.mark.parametrize(
    ("down", "why"), [(goes_down, "its breaker is open"), (is_stopped, "it was stopped: wrong token")]
)
def test_what_waits_is_moved_and_says_why(
    routed: None, shop: Caller, first: Account, second: Account, down: Any, why: str
) -> None:
    ids = wait(shop.service, 3)
    down(first)
    assert look() == 3
    assert carriers(ids) == {"second": 3}
    kept = Moved.objects.filter(message_id=ids[0]).get()
    assert (kept.from_account_id, kept.to_account_id, kept.reason) == (first.pk, second.pk, why)
    words = [entry.words for entry in trace(Message.objects.get(pk=ids[0])).entries]
    assert f"went from account first to second: {why}" in words
    assert look() == 0


def test_every_lane_is_moved_and_sent_by_the_other(routed: None, shop: Caller, first: Account, second: Account) -> None:
    ids = [each for lane in ("urgent", "normal", "bulk") for each in wait(shop.service, priority=lane)]
    is_stopped(first)
    assert look() == 3
    for message_id in ids:
        steps.send(message_id)
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}


def test_a_breaker_that_has_just_opened_moves_nothing_yet(routed: None, shop: Caller, first: Account) -> None:
    wait(shop.service)
    goes_down(first, since=0)
    assert look() == 0


def test_a_message_that_came_a_moment_ago_may_be_the_probe(routed: None, shop: Caller, first: Account) -> None:
    goes_down(first, probe_in=-1)
    assert carriers(steps.accept(shop.service)) == {"first": 1}
    assert look() == 0


def test_a_probe_that_failed_goes_by_the_other_when_it_is_due_again(routed: None, shop: Caller, first: Account) -> None:
    goes_down(first, probe_in=-1)
    probe, scheduled = steps.accept(shop.service, 2, account="")
    Pending.objects.update(account_id=first.pk)
    Message.objects.update(account_id=first.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pending SET due_at = chaski_now() + interval '1 minute', attempt_count = (message_id = %s)::int",
            [probe],
        )
    due_at = Pending.objects.get(pk=probe).due_at
    assert look() == 1
    assert carriers([probe, scheduled]) == {"second": 1, "first": 1}
    assert Pending.objects.get(pk=probe).due_at == due_at


def test_nothing_is_moved_without_a_route(shop: Caller, first: Account, second: Account) -> None:
    ids = wait(shop.service)
    is_stopped(first)
    assert look() == 0
    assert carriers(ids) == {"first": 1}


def test_what_may_have_reached_somebody_stays(routed: None, shop: Caller, first: Account) -> None:
    doubtful, suspect, named, leased, blocked, fine = (wait(shop.service)[0] for _ in range(6))
    Pending.objects.filter(pk=doubtful).update(blind_count=1)
    Pending.objects.filter(pk=suspect).update(suspicion=1)
    Pending.objects.filter(pk=named).update(pinned=True)
    Pending.objects.filter(pk=blocked).update(blocked=True, waiting_for="operator")
    steps.claim(ids=[leased])
    is_stopped(first)
    assert look() == 1
    assert Message.objects.get(pk=fine).account_id != first.pk
    assert set(Message.objects.exclude(pk=fine).values_list("account_id", flat=True)) == {first.pk}


def test_what_no_other_provider_takes_waits_and_is_looked_at_once(shop: Caller, first: Account) -> None:
    make_account(
        "sms",
        "twilio",
        "second",
        service=shop.service,
        options={"account_sid": "AC" + "0" * 32, "from_number": "+15550100"},
        secrets={"auth_token": "x"},
    )
    call_command("route", "set", shop.service.name, "sms", "first", "second:0")
    table.forget()
    long, short = wait(shop.service, text="x" * 2_000)[0], wait(shop.service)[0]
    is_stopped(first)
    assert look() == 1
    assert Message.objects.get(pk=short).provider == "twilio"
    assert Message.objects.get(pk=long).account_id == first.pk
    assert Pending.objects.get(pk=long).pinned


def test_the_order_of_a_key_is_kept(routed: None, shop: Caller, first: Account) -> None:
    ids = wait(shop.service, 3, ordering_key="cart")
    is_stopped(first)
    for moved, message_id in enumerate(ids, 1):
        assert look() == 1
        assert Moved.objects.count() == moved
        steps.send(message_id)
    assert [row.pk for row in Message.objects.order_by("sent_at")] == ids


def test_what_stays_holds_nothing_behind_it_up(routed: None, shop: Caller, first: Account) -> None:
    wait(shop.service, PAGE, account="first")
    doubtful = wait(shop.service, PAGE)
    Message.objects.filter(pk__in=doubtful).update(in_doubt_count=1)
    late = wait(shop.service, 2 * PAGE)
    Pending.objects.update(due_at=steps_ago())
    is_stopped(first)
    assert look() == 2 * PAGE
    assert set(carriers(late)) == {"second"}
    assert set(carriers(doubtful)) == {"first"}


def test_what_a_provider_may_have_taken_stays_with_it(routed: None, shop: Caller, first: Account) -> None:
    taken_perhaps, never_left = wait(shop.service, 2)
    steps.send(taken_perhaps, steps.REFUSALS["transient"])
    steps.send(never_left, steps.REFUSALS["not_sent"])
    Pending.objects.update(due_at=steps_ago())
    is_stopped(first)
    assert look() == 1
    assert carriers([taken_perhaps]) == {"first": 1}
    assert carriers([never_left]) == {"second": 1}


def test_who_might_take_it_later_is_waited_for(shop: Caller, first: Account, second: Account) -> None:
    options = {"account_sid": "AC" + "0" * 32, "from_number": "+15550100"}
    make_account("sms", "twilio", "third", service=shop.service, options=options, secrets={"auth_token": "x"})
    call_command("route", "set", shop.service.name, "sms", "first", "second:0", "third:0")
    table.forget()
    (long,) = wait(shop.service, text="x" * 2_000)
    is_stopped(first)
    goes_down(second)
    assert look() == 0
    Breaker.objects.all().delete()
    assert look() == 1
    assert carriers([long]) == {"second": 1}


def test_an_account_that_is_paused_keeps_its_messages_and_stands_in_for_nobody(
    routed: None, shop: Caller, first: Account, second: Account
) -> None:
    ids = wait(shop.service, 2)
    is_stopped(first)
    acts.pause("account", str(first.pk), actor="x", reason="x")
    table.forget()
    assert look() == 0
    Pause.objects.update(value=str(second.pk))
    table.forget()
    assert look() == 0
    assert carriers([*ids, *steps.accept(shop.service, 5)]) == {"first": 7}


def test_weights_of_nothing_but_stand_ins_are_refused(shop: Caller, first: Account) -> None:
    with pytest.raises(Exception, match="stand in for"):
        call_command("route", "set", shop.service.name, "sms", "first:0")
