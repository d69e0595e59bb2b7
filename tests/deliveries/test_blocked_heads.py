"""The rule of a service for a blocked head: how long the others wait for it, and what happens then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from deliveries import acts, ledger, lifecycle
from deliveries.delivery import blocked_heads
from deliveries.delivery.blocked_heads import PREDECESSOR_BLOCKED, BlockedHeads
from deliveries.models import Account, Breaker, Event, Inquiry, Message, Pending, Service
from deliveries.models.control import PauseScope
from deliveries.models.services import OrderThen
from deliveries.retry import Outcome, Policy
from deliveries.setting_up import set_order
from deliveries.trace import trace
from tests.deliveries import steps
from tests.factories import Caller, make_account, make_caller

pytestmark = pytest.mark.django_db

KEY = "cart-1"
WAIT = timedelta(seconds=60)
#: Of both the next attempt is ten minutes away, far beyond the wait.
PATIENT = Policy(base_seconds=600.0)
THROTTLED = Outcome("throttled", "http_429", retry_after=600.0)


def rule(service: Service, then: OrderThen, wait: timedelta | None = WAIT) -> None:
    """Give ``service`` its rule."""
    set_order(service, wait, then, actor="somebody")


@pytest.fixture
def skipping(shop: Caller) -> Service:
    """A service whose blocked heads step aside."""
    make_account("sms")
    rule(shop.service, OrderThen.SKIP)
    return shop.service


@pytest.fixture
def failing(shop: Caller) -> Service:
    """A service whose messages fail behind a blocked head."""
    make_account("sms")
    rule(shop.service, OrderThen.FAIL_REST)
    return shop.service


def look(rounds: BlockedHeads | None = None) -> int:
    """Look until nothing is found, each time in a transaction of its own, as the relay does; how many were changed."""
    rounds, done = rounds or BlockedHeads(), 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            found = rounds.look(cursor)
        if not found:
            return done
        done += found


def retried(message_id: UUID) -> None:
    steps.send(message_id, steps.REFUSALS["not_sent"], PATIENT)


def throttled(message_id: UUID) -> None:
    steps.send(message_id, THROTTLED)


def in_doubt(message_id: UUID) -> None:
    steps.send(message_id, steps.REFUSALS["in_doubt"], Policy(hold_in_doubt=True))


BLOCKS = {"retry": retried, "throttle": throttled, "doubt": in_doubt}
Passes = Callable[[float], object]


def claimed() -> list[UUID]:
    """What a worker would take now; it does."""
    return [each.id for each in steps.claim()]


def sent() -> list[UUID]:
    """What is sent now."""
    found = steps.claim()
    steps.begun(found)
    for each in found:
        steps.record(each, steps.ACCEPTED)
    return [each.id for each in found]


def is_blocked(message_id: UUID) -> bool:
    place = steps.pending(message_id)
    assert place is not None
    return place.blocked


def statuses(ids: list[UUID]) -> list[str]:
    return [steps.message(each).status for each in ids]


def violations() -> list[str]:
    with connection.cursor() as cursor:
        return [each.detail for each in ledger.examine(cursor).violations]


def asides() -> list[UUID]:
    """The messages that stepped aside, by their events."""
    return list(Event.objects.filter(reason__startswith="stepped aside").values_list("message_id", flat=True))


def stop(account: Account) -> None:
    """Its credentials were refused."""
    Account.objects.filter(pk=account.pk).update(stopped_at=steps.now(), stopped_reason="wrong token")


def gives_up(account: Account) -> None:
    """Its breaker opens."""
    Breaker.objects.create(account_id=account.pk, opened_at=steps.now(), probe_at=steps.now() + timedelta(hours=1))


DOWN = {"stopped": stop, "breaker": gives_up}


# -- the head steps aside


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_blocked_head_steps_aside_once_it_was_waited_for(
    block: Callable[[UUID], None], skipping: Service, passes: Passes
) -> None:
    head, second, third = steps.accept(skipping, 3, ordering_key=KEY)
    block(head)
    assert look() == 1, "its time begins"
    passes(59)
    assert look() == 0
    assert claimed() == []
    passes(2)
    assert look() == 1
    assert claimed() == [second]
    assert is_blocked(third), "one at a time"
    assert steps.message(head).status in ("queued", "in_doubt"), "the head goes on"


def test_what_goes_out_of_order_was_announced_and_the_ledger_agrees(skipping: Service, passes: Passes) -> None:
    head, second = steps.accept(skipping, 2, ordering_key=KEY)
    retried(head)
    look()
    passes(61)
    look()
    steps.send(second)
    event = Event.objects.filter(message_id=head).order_by("-sequence")[0]
    assert (event.status, event.reason) == (
        "queued",
        f"stepped aside: it waits for its next attempt, and message {second} of its ordering key waits no longer for it",
    )
    assert [entry.words for entry in trace(steps.message(head)).entries][-1] == event.reason
    passes(800)
    steps.send(head)
    assert statuses([head, second]) == ["sent", "sent"]
    assert not violations()


def test_a_build_that_lets_a_head_step_aside_without_a_word_is_found(
    skipping: Service, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, second = steps.accept(skipping, 2, ordering_key=KEY)
    retried(head)
    look()
    passes(61)
    monkeypatch.setattr(lifecycle, "step_aside", lambda *_: set())
    look()
    steps.send(second)
    (found,) = violations()
    assert found.startswith("began before its turn"), "while the head waits"
    passes(800)
    steps.send(head)
    (found,) = violations()
    assert found.startswith("began before its turn"), "and once it was sent"


def test_a_doubt_that_stepped_aside_is_still_asked_for_and_resolved(skipping: Service, passes: Passes) -> None:
    head, second = steps.accept(skipping, 2, ordering_key=KEY)
    steps.send(head, steps.REFUSALS["in_doubt"], Policy(hold_in_doubt=True, ask_after_seconds=3600.0))
    look()
    passes(61)
    look()
    assert Inquiry.objects.filter(pk=head).exists()
    assert claimed() == [second]
    acts.resolve(steps.message(head), "retry", actor="somebody", reason="it did not come")
    assert claimed() == [head], "nothing waits for it, and it waits for nothing"


def test_one_that_stepped_aside_and_is_redelivered_is_in_its_order_again(skipping: Service, passes: Passes) -> None:
    head, second, third = steps.accept(skipping, 3, ordering_key=KEY)
    in_doubt(head)
    look()
    passes(61)
    look()
    acts.resolve(steps.message(head), "failed", actor="somebody", reason="it did not come")
    acts.redeliver(steps.message(head), actor="somebody")
    assert [sent(), sent(), sent()] == [[second], [third], [head]]


def test_each_head_has_its_own_time(skipping: Service, passes: Passes) -> None:
    first, second, third = steps.accept(skipping, 3, ordering_key=KEY)
    in_doubt(first)
    look()
    passes(61)
    look()
    in_doubt(second)
    assert look() == 1, "the time of the second begins"
    passes(59)
    assert look() == 0
    passes(2)
    look()
    assert claimed() == [third]
    assert asides() == [first, second]


def test_a_message_that_comes_late_waits_as_long_as_any_other(skipping: Service, passes: Passes) -> None:
    head, _ = steps.accept(skipping, 2, ordering_key=KEY)
    in_doubt(head)
    look()
    acts.cancel(steps.message(Pending.objects.exclude(pk=head).get().pk), actor="somebody")
    passes(600)
    (late,) = steps.accept(skipping, ordering_key=KEY)
    Pending.objects.filter(pk=late).update(due_at=steps.now())
    assert look() == 0
    passes(61)
    look()
    assert claimed() == [late]


# -- whose time does not count


def scheduled(service: Service) -> list[UUID]:
    later = (steps.now() + timedelta(hours=2)).isoformat()
    return [*steps.accept(service, ordering_key=KEY, send_at=later), *steps.accept(service, ordering_key=KEY)]


def not_taken_yet(service: Service) -> list[UUID]:
    return steps.accept(service, 2, ordering_key=KEY)


def due_again(service: Service) -> list[UUID]:
    ids = steps.accept(service, 2, ordering_key=KEY)
    retried(ids[0])
    Pending.objects.filter(pk=ids[0]).update(due_at=steps.now())
    return ids


def paced(service: Service) -> list[UUID]:
    """It waits for the rate of its account, in which the next would have to wait as well."""
    ids = steps.accept(service, 2, ordering_key=KEY)
    due_at = steps.now() + timedelta(hours=1)
    Pending.objects.filter(pk=ids[0]).update(waiting_for="rate_limit", due_at=due_at)
    return ids


def under_way(service: Service) -> list[UUID]:
    ids = steps.accept(service, 2, ordering_key=KEY)
    steps.begun(steps.claim())
    Pending.objects.filter(pk=ids[0]).update(lease_until=steps.now() + timedelta(hours=1))
    return ids


def under_way_while_its_account_stops(service: Service) -> list[UUID]:
    ids = under_way(service)
    stop(steps.account_of(ids[0]))
    return ids


def before_one_of_tomorrow(service: Service) -> list[UUID]:
    tomorrow = (steps.now() + timedelta(hours=3)).isoformat()
    expires_at = (steps.now() + timedelta(days=1)).isoformat()
    ids = steps.accept(service, ordering_key=KEY)
    ids += steps.accept(service, ordering_key=KEY, send_at=tomorrow, expires_at=expires_at)
    in_doubt(ids[0])
    return ids


@pytest.mark.parametrize("then", OrderThen)
@pytest.mark.parametrize(
    "state",
    [scheduled, not_taken_yet, due_again, paced, under_way, under_way_while_its_account_stops, before_one_of_tomorrow],
)
def test_a_head_that_nothing_of_its_own_holds_up_is_not_blocked(
    state: Callable[[Service], list[UUID]], then: OrderThen, shop: Caller, passes: Passes
) -> None:
    """No worker took it, say: all keys would lose their order in an outage of ours."""
    make_account("sms")
    rule(shop.service, then)
    ids = state(shop.service)
    before = statuses(ids)
    for _ in range(3):
        assert look() == 0
        passes(600)
    assert statuses(ids) == before
    assert not asides()


def batch_of(service: Service, ids: list[UUID]) -> str:
    """Put ``ids`` into a batch, whose id is told."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO batch (id, service_id, accepted, duplicates, rejected) VALUES"
            " (gen_random_uuid(), %s, 2, 0, 0) RETURNING id",
            [service.pk],
        )
        batch_id = cursor.fetchone()[0]
    Pending.objects.filter(pk__in=ids).update(batch_id=batch_id)
    return str(batch_id)


PAUSED: dict[PauseScope, Callable[[Service, list[UUID]], str]] = {
    PauseScope.ALL: lambda _, __: "",
    PauseScope.CHANNEL: lambda _, __: "sms",
    PauseScope.ACCOUNT: lambda _, ids: str(steps.account_of(ids[0]).pk),
    PauseScope.SERVICE: lambda service, _: str(service.pk),
    PauseScope.BATCH: batch_of,
}


@pytest.mark.parametrize("then", OrderThen)
@pytest.mark.parametrize("scope", PAUSED)
def test_what_an_operator_has_paused_keeps_its_order(
    scope: PauseScope, then: OrderThen, shop: Caller, passes: Passes
) -> None:
    make_account("sms")
    rule(shop.service, then)
    ids = steps.accept(shop.service, 2, ordering_key=KEY)
    in_doubt(ids[0])
    look()
    value = PAUSED[scope](shop.service, ids)
    acts.pause(scope, value, actor="somebody")
    assert look() == 1, "its time ends"
    passes(600)
    assert look() == 0
    acts.resume(scope, value, actor="somebody")
    assert look() == 1, "its time begins anew"
    passes(59)
    assert look() == 0
    assert statuses(ids) == ["in_doubt", "queued"]


def test_a_head_that_was_free_in_between_is_blocked_anew(failing: Service, passes: Passes) -> None:
    """An account that is down for seconds, twice in a backlog, is no reason to fail what waits behind each head."""
    ids = steps.accept(failing, 2, ordering_key=KEY)
    account = steps.account_of(ids[0])
    gives_up(account)
    assert look() == 1
    Breaker.objects.all().delete()
    passes(70)
    assert look() == 1, "its time ends"
    gives_up(account)
    assert look() == 1, "its time begins anew"
    passes(59)
    assert look() == 0
    passes(2)
    assert look() == 1
    assert statuses(ids) == ["queued", "failed"]


def test_a_doubt_that_is_resolved_for_a_repeat_is_blocked_no_longer(failing: Service, passes: Passes) -> None:
    head, second = steps.accept(failing, 2, ordering_key=KEY)
    in_doubt(head)
    look()
    passes(50)
    acts.resolve(steps.message(head), "retry", actor="somebody", reason="it did not come")
    retried(head)
    assert look() == 1, "its time begins anew"
    passes(50)
    assert look() == 0
    assert statuses([head, second]) == ["queued", "queued"]


@pytest.mark.parametrize("then", OrderThen)
@pytest.mark.parametrize("which", [0, 1])
def test_a_paused_head_and_a_paused_one_behind_it_both_keep_their_places(
    which: int, then: OrderThen, shop: Caller, passes: Passes
) -> None:
    make_account("sms")
    rule(shop.service, then)
    ids = steps.accept(shop.service, 2, ordering_key=KEY)
    in_doubt(ids[0])
    acts.pause(PauseScope.BATCH, batch_of(shop.service, [ids[which]]), actor="somebody")
    assert look() == 0
    passes(600)
    assert look() == 0


def test_of_those_behind_a_head_what_is_paused_does_not_fail(failing: Service, passes: Passes) -> None:
    head, second, third = steps.accept(failing, 3, ordering_key=KEY)
    in_doubt(head)
    acts.pause(PauseScope.BATCH, batch_of(failing, [third]), actor="somebody")
    look()
    passes(61)
    assert look() == 1
    assert statuses([second, third]) == ["failed", "queued"]


def test_every_scope_of_a_pause_is_tried() -> None:
    assert set(PAUSED) == set(PauseScope)


@pytest.mark.parametrize("goes_down", DOWN.values(), ids=DOWN)
def test_a_head_whose_account_is_down_steps_aside_for_one_that_can_go_and_for_no_other(
    goes_down: Callable[[Account], None], shop: Caller, passes: Passes
) -> None:
    down, up = (make_account("sms", name=name, service=shop.service) for name in ("down", "up"))
    rule(shop.service, OrderThen.SKIP)
    alone, alike = steps.accept(shop.service, 2, ordering_key="all of it", account="down")
    (head,) = steps.accept(shop.service, ordering_key=KEY, account="down")
    (other,) = steps.accept(shop.service, ordering_key=KEY, account="up")
    goes_down(down)
    assert look() == 1
    passes(61)
    assert look() == 1
    assert not is_blocked(other)
    assert asides() == [head]
    assert is_blocked(alike), "it could not go either, and keeps its order for when both can"
    assert statuses([alone]) == ["queued"]
    assert up.pk == steps.account_of(other).pk


# -- the rest fails


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_what_waits_behind_a_blocked_head_fails_and_says_for_whom(
    block: Callable[[UUID], None], failing: Service, passes: Passes
) -> None:
    head, *rest = steps.accept(failing, 3, ordering_key=KEY)
    (of_another_key,) = steps.accept(failing, ordering_key="another")
    block(head)
    assert look() == 1
    passes(61)
    assert look() == 2
    for message in Message.objects.filter(pk__in=rest):
        assert (message.status, message.error_class, message.error_code) == ("failed", "not_sent", PREDECESSOR_BLOCKED)
        assert str(head) in message.error_detail
        assert steps.pending(message.pk) is None
    assert sent() == [of_another_key], "another key does not notice"
    assert not asides()
    (last,) = steps.accept(failing, ordering_key=KEY)
    assert is_blocked(last), "the head keeps its place"
    assert not violations()


def test_a_head_that_goes_out_in_the_end_lets_go_what_came_after(failing: Service, passes: Passes) -> None:
    head, dead = steps.accept(failing, 2, ordering_key=KEY)
    retried(head)
    look()
    passes(700)
    Pending.objects.filter(pk=head).update(due_at=steps.now() + timedelta(seconds=5))
    look()
    (fresh,) = steps.accept(failing, ordering_key=KEY)
    Pending.objects.filter(pk=fresh).update(due_at=steps.now())
    assert look() == 0, "it waits as long as any other"
    passes(6)
    steps.send(head)
    steps.send(fresh)
    acts.redeliver(steps.message(dead), actor="somebody")
    steps.send(dead)
    assert statuses([head, fresh, dead]) == ["sent", "sent", "sent"]
    assert not violations()


@pytest.mark.parametrize("goes_down", DOWN.values(), ids=DOWN)
def test_the_rest_fails_too_where_the_account_of_all_of_them_is_down(
    goes_down: Callable[[Account], None], failing: Service, passes: Passes
) -> None:
    ids = steps.accept(failing, 2, ordering_key=KEY)
    goes_down(steps.account_of(ids[0]))
    look()
    passes(61)
    look()
    assert statuses(ids) == ["queued", "failed"]


def test_any_number_behind_one_head_fails_by_bounded_turns(
    failing: Service, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_heads, "ROWS", 2)
    head, *rest = steps.accept(failing, 6, ordering_key=KEY)
    in_doubt(head)
    look()
    passes(61)
    rounds, turns = BlockedHeads(), []
    for _ in range(4):
        with transaction.atomic(), connection.cursor() as cursor:
            turns.append(rounds.look(cursor))
    assert turns == [2, 2, 1, 0]
    assert set(statuses(rest)) == {"failed"}


# -- many keys, several services


@pytest.mark.parametrize("then", OrderThen)
def test_a_round_finds_every_blocked_head_of_every_service_with_a_rule(
    then: OrderThen, shop: Caller, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_heads, "PAGE", 2)
    monkeypatch.setattr(blocked_heads, "PAGES", 2)
    monkeypatch.setattr(blocked_heads, "ROWS", 3)
    make_account("sms")
    services = [shop.service, *(make_caller(name).service for name in ("without", "third"))]
    rule(services[0], then)
    rule(services[2], then)
    heads = {service.name: [] for service in services}
    for service in services:
        for number in range(7):
            ids = steps.accept(service, 2, ordering_key=f"k{number}")
            if number % 2:
                in_doubt(ids[0])
                heads[service.name].append(ids[0])
    rounds = BlockedHeads()
    for _ in range(12):
        look(rounds)
    marked = set(Pending.objects.filter(blocking_at__isnull=False).values_list("pk", flat=True))
    assert marked == {*heads["shop"], *heads["third"]}
    passes(61)
    for _ in range(12):
        look(rounds)
    failed = set(Message.objects.filter(error_code=PREDECESSOR_BLOCKED).values_list("service__name", flat=True))
    gone = set(asides()) if then is OrderThen.SKIP else failed
    assert gone == (marked if then is OrderThen.SKIP else {"shop", "third"})
    assert Message.objects.filter(error_code=PREDECESSOR_BLOCKED).count() == (0 if then is OrderThen.SKIP else 6)


def test_more_than_fit_into_one_turn_are_found_in_one_round(
    skipping: Service, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_heads, "ROWS", 2)
    for number in range(5):
        in_doubt(steps.accept(skipping, 2, ordering_key=f"k{number}")[0])
    assert look() == 5
    passes(61)
    assert look() == 5
    assert len(asides()) == 5


def test_without_a_rule_nothing_happens_and_one_statement_says_so(
    shop: Caller, passes: Passes, django_assert_num_queries: Any
) -> None:
    make_account("sms")
    head, _ = steps.accept(shop.service, 2, ordering_key=KEY)
    in_doubt(head)
    passes(3600)
    with django_assert_num_queries(1), connection.cursor() as cursor:
        assert BlockedHeads().look(cursor) == 0
    rule(shop.service, OrderThen.SKIP)
    assert look() == 1
    rule(shop.service, OrderThen.SKIP, None)
    passes(3600)
    assert look() == 0


# -- what people see


def test_a_message_says_for_which_other_one_it_waits_and_how_long_that_may_last(
    shop: Caller, skipping: Service, passes: Passes
) -> None:
    head, second = steps.accept(skipping, 2, ordering_key=KEY)
    assert trace(steps.message(second)).waits == f"waits for message {head} ahead of it in its order"
    in_doubt(head)
    look()
    place = steps.pending(head)
    assert place is not None
    assert place.blocking_at is not None
    since, until = (f"{at:%Y-%m-%d %H:%M:%S} UTC" for at in (place.blocking_at, place.blocking_at + WAIT))
    words = f"waits for message {head} ahead of it in its order, blocked since {since}"
    assert trace(steps.message(second)).waits == f"{words}; that one steps aside at {until}"
    rule(skipping, OrderThen.FAIL_REST)
    assert trace(steps.message(second)).waits == f"{words}; this one fails at {until}"
    rule(skipping, OrderThen.SKIP, None)
    assert trace(steps.message(second)).waits == words
