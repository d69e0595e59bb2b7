"""A message in doubt that its provider is asked for: found, not there, no certainty, and everybody who is quicker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction

from channels.base import Accepted, InDoubt, ReceiptKind, Throttled
from deliveries import acts, ledger, trace
from deliveries.conf import limits
from deliveries.delivery import inquiries, reconcile
from deliveries.delivery.inquiries import Asked, Finding
from deliveries.delivery.reconcile import Reconciler
from deliveries.models import Account, Attempt, Event, Inquiry, Pending
from deliveries.models.accounts import InDoubtPolicy
from deliveries.retry import Outcome, Policy
from deliveries.sql import Cursor
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
AFTER = 60.0
POLICY = Policy(ask_after_seconds=AFTER)
FOUND = Accepted("SM1", "found in the list")
NO_ANSWER = InDoubt("timeout", "no answer")


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> Account:
    return make_account("sms", in_doubt_policy=InDoubtPolicy.RECONCILE)


@pytest.fixture
def doubted(shop: Caller) -> UUID:
    """A message whose answer never came."""
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"], POLICY)
    return message_id


def taken() -> list[Asked]:
    """The inquiries that are due."""
    with transaction.atomic(), connection.cursor() as cursor:
        return inquiries.take(cursor)


def concluded(asked: Asked, finding: Finding) -> str:
    """What becomes of one."""
    with transaction.atomic(), connection.cursor() as cursor:
        return inquiries.conclude(cursor, asked, finding, POLICY)


def asked_later(finding: Finding, seconds: float = AFTER + 1) -> str:
    """One ask when it is due, and its conclusion."""
    with steps.later(timedelta(seconds=seconds)):
        (asked,) = taken()
        return concluded(asked, finding)


def balanced() -> bool:
    """Every invariant holds."""
    with connection.cursor() as cursor:
        found = ledger.examine(cursor)
    assert not found.violations
    return found.balanced


def test_a_doubt_is_held_and_asked_for_once_the_providers_list_is_complete(doubted: UUID) -> None:
    pending = steps.pending(doubted)
    assert pending is not None
    assert (steps.message(doubted).status, pending.blocked) == ("in_doubt", True)
    assert not steps.claim(), "it is not sent meanwhile"
    assert not taken(), "too early"
    with steps.later(timedelta(seconds=AFTER + 1)):
        (asked,) = taken()
        assert asked.since == Attempt.objects.get().opened_at
        assert not taken(), "one asks at a time"
    assert balanced()


def test_a_message_that_the_provider_has_is_sent_with_its_id_and_counts_as_one_accept(doubted: UUID) -> None:
    assert asked_later(FOUND) == "found"
    message, attempt = steps.message(doubted), Attempt.objects.get()
    assert (message.status, message.provider_message_id, message.in_doubt_count) == ("sent", "SM1", 1)
    assert attempt.provider_message_id == "SM1"
    assert (steps.pending(doubted), Inquiry.objects.count()) == (None, 0)
    last = Event.objects.order_by("sequence").last()
    assert last is not None
    assert (last.status, last.reason, last.attempt) == ("sent", "found at the provider", 1)
    assert balanced()
    assert any("the provider has it" in entry.words for entry in trace.trace(message).entries)


def test_a_message_that_the_provider_does_not_have_is_sent_again_without_counting_as_blind(doubted: UUID) -> None:
    assert asked_later(None) == "sent_again"
    pending = steps.pending(doubted)
    assert pending is not None
    assert (steps.message(doubted).status, pending.blocked, pending.blind_count) == ("queued", False, 0)
    with steps.later(timedelta(seconds=AFTER + 600)):
        assert steps.send(doubted) is not None
    assert steps.message(doubted).status == "sent"
    assert balanced()


def test_one_that_is_not_there_and_whose_time_has_passed_expires(doubted: UUID) -> None:
    assert asked_later(None, seconds=5 * 3600) == "expired"
    assert steps.message(doubted).status == "expired"
    assert steps.pending(doubted) is None
    assert balanced()


def test_without_certainty_it_is_asked_ever_more_rarely_and_then_held_for_an_operator(doubted: UUID) -> None:
    waits, after = [], 0.0
    for n in range(limits().asks):
        after += AFTER * 2**n + 1
        with steps.later(timedelta(seconds=after)):
            (asked,) = taken()
            said = concluded(asked, NO_ANSWER)
            due_at = Inquiry.objects.get().due_at
            waits.append(due_at and round((due_at - steps.now()).total_seconds()))
    assert said == "held"
    assert waits == [60, 120, 240, 480, 960, None]
    with steps.later(timedelta(days=1)):
        assert not taken()
        assert steps.swept() == 0, "a held message does not expire"
    message = steps.message(doubted)
    assert message.status == "in_doubt"
    assert any("no answer" in entry.words for entry in trace.trace(message).entries)
    assert balanced()


def test_a_provider_that_asks_for_patience_is_given_it(doubted: UUID) -> None:
    with steps.later(timedelta(seconds=AFTER + 1)):
        (asked,) = taken()
        concluded(asked, Throttled("http_429", retry_after=900.0))
        due_at = Inquiry.objects.get().due_at
        assert due_at is not None
        assert (due_at - steps.now()).total_seconds() > 890


def test_whose_lease_has_ended_concludes_nothing(doubted: UUID) -> None:
    with steps.later(timedelta(seconds=AFTER + 1)):
        (frozen,) = taken()
    with steps.later(timedelta(hours=1)):
        (second,) = taken()
        assert concluded(frozen, None) == "fenced"
        assert concluded(frozen, NO_ANSWER) == "fenced"
        assert steps.message(doubted).status == "in_doubt", "the second one's answer counts"
        assert concluded(second, FOUND) == "found"


def test_an_ask_that_kills_its_process_is_given_up_like_any_without_an_answer(doubted: UUID) -> None:
    for hour in range(1, limits().asks + 1):
        with steps.later(timedelta(hours=hour)):
            (asked,) = taken()
    assert asked.asked == limits().asks
    with steps.later(timedelta(hours=hour)):
        assert concluded(asked, NO_ANSWER) == "held"


@pytest.mark.parametrize("quicker", ["receipt", "operator", "retry"])
def test_who_settles_the_message_meanwhile_is_not_contradicted(doubted: UUID, quicker: str) -> None:
    with steps.later(timedelta(seconds=AFTER + 1)):
        (asked,) = taken()
        message = steps.message(doubted)
        if quicker == "receipt":
            steps.receive(message, ReceiptKind.DELIVERED)
        else:
            acts.resolve(message, "failed" if quicker == "operator" else "retry", actor="ada", reason="seen")
        status = steps.message(doubted).status
        assert concluded(asked, None) == "settled_before"
        assert (
            steps.message(doubted).status
            == status
            == {"receipt": "delivered", "operator": "failed"}.get(quicker, "queued")
        )
        assert not taken()
        assert Inquiry.objects.count() == 0
    assert balanced()


def test_what_belongs_to_another_attempt_proves_nothing(shop: Caller, doubted: UUID) -> None:
    (other,) = steps.accept(shop.service)
    steps.send(other)
    assert asked_later(Accepted(steps.ACCEPTED.provider_message_id)) == "asked_again"
    assert steps.message(doubted).status == "in_doubt"


def test_a_second_doubt_is_asked_for_anew(doubted: UUID) -> None:
    assert asked_later(None) == "sent_again"
    with steps.later(timedelta(seconds=AFTER + 600)):
        steps.send(doubted, steps.REFUSALS["in_doubt"], POLICY)
        inquiry = Inquiry.objects.get()
        assert (inquiry.number, inquiry.asked) == (2, 0)
        assert inquiry.since == Attempt.objects.get(number=1).opened_at, "the first request may have arrived as well"


def test_the_successor_of_a_found_message_may_go(shop: Caller) -> None:
    head, next_ = steps.accept(shop.service, 2, ordering_key="order:7")
    steps.send(head, steps.REFUSALS["in_doubt"], POLICY)
    assert not steps.claim(), "it waits for the one in doubt"
    assert asked_later(FOUND) == "found"
    assert [claimed.id for claimed in steps.claim()] == [next_]


def test_a_vanished_workers_message_is_asked_for_too(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.begun(steps.claim())
    with steps.later(timedelta(seconds=61)):
        steps.swept()
        assert steps.message(message_id).status == "in_doubt"
        assert Inquiry.objects.get().message_id == message_id
    assert asked_later(FOUND, seconds=3600) == "found"
    assert balanced()


@pytest.mark.parametrize("policy", [InDoubtPolicy.HOLD, InDoubtPolicy.RETRY])
def test_under_another_policy_nobody_is_asked(shop: Caller, policy: InDoubtPolicy) -> None:
    Account.objects.update(in_doubt_policy=policy)
    steps.accept(shop.service)
    steps.begun(steps.claim())
    with steps.later(timedelta(seconds=61)):
        steps.swept()
    assert not Inquiry.objects.exists()


# -- one odd answer among others


@pytest.fixture
def reconciler() -> Iterator[Reconciler]:
    """One that looks when the test says so, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = Reconciler(loop)
    made._accounts = made._on_loop(made._open())
    yield made
    made._on_loop(made._accounts.close())
    made._connection.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def due_now() -> None:
    """Every inquiry is due, and nobody asks."""
    Inquiry.objects.exclude(due_at=None).update(due_at=steps.now() - timedelta(seconds=1), lease_until=None)


def doubts(shop: Caller, count: int) -> list[UUID]:
    """Messages whose answers never came, whose inquiries are due."""
    ids = steps.accept(shop.service, count)
    for message_id in ids:
        steps.send(message_id, steps.REFUSALS["in_doubt"], POLICY)
    due_now()
    return ids


def answers(monkeypatch: pytest.MonkeyPatch, found: dict[UUID, Finding]) -> None:
    """The provider says of each message what is ``found``."""

    async def ask(asked: Asked, account: object) -> Finding:
        return found[asked.id]

    monkeypatch.setattr(reconcile, "ask", ask)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("odd", ["SM\0", "SM\ud800"])
def test_an_id_that_no_database_keeps_is_kept_without_what_is_odd(
    shop: Caller, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    first, second = doubts(shop, 2)
    answers(monkeypatch, {first: Accepted(odd), second: Accepted("SM2")})
    assert reconciler.look() == 2
    assert [steps.message(each).status for each in (first, second)] == ["sent", "sent"]
    assert steps.message(first).provider_message_id in ("SM", "SM?")


@pytest.mark.django_db(transaction=True)
def test_one_that_cannot_be_concluded_leaves_its_neighbours_alone_and_is_asked_no_more_than_any_other(
    shop: Caller, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, plain = doubts(shop, 2)
    answers(monkeypatch, {odd: Accepted("SM1"), plain: Accepted("SM2")})
    real = inquiries._found

    def found(cursor: Cursor, asked: Asked, finding: Accepted) -> str:
        if asked.id == odd:
            cursor.execute("SELECT 'a'::int")
        return real(cursor, asked, finding)

    monkeypatch.setattr(inquiries, "_found", found)
    assert reconciler.look() == 2
    assert [steps.message(each).status for each in (odd, plain)] == ["in_doubt", "sent"]
    for _ in range(2 * limits().asks):
        due_now()
        reconciler.look()
    inquiry = Inquiry.objects.get()
    assert (inquiry.asked, inquiry.due_at) == (limits().asks, None)
    assert "InvalidTextRepresentation" in inquiry.said


@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_holds_costs_its_own_conclusion_only(
    shop: Caller, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, free = doubts(shop, 2)
    answers(monkeypatch, {held: Accepted("SM1"), free: Accepted("SM2")})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [held])
        assert reconciler.look() == 2
    assert [steps.message(each).status for each in (held, free)] == ["in_doubt", "sent"]
    due_now()
    reconciler.look()
    assert steps.message(held).status == "sent"


def test_asks_that_never_come_to_an_end_are_given_up(doubted: UUID) -> None:
    for hour in range(1, limits().asks + 3):
        with steps.later(timedelta(hours=hour)):
            asked = taken()
            assert len(asked) == (1 if hour <= limits().asks else 0)
    inquiry = Inquiry.objects.get()
    assert (inquiry.asked, inquiry.due_at, inquiry.lease_until) == (limits().asks, None, None)
    assert steps.message(doubted).status == "in_doubt", "an operator decides"


@pytest.mark.parametrize("by", ["receipt", "operator"])
def test_an_inquiry_goes_when_its_message_leaves_its_doubt(doubted: UUID, by: str) -> None:
    if by == "receipt":
        steps.receive(steps.message(doubted), ReceiptKind.DELIVERED)
    else:
        acts.resolve(steps.message(doubted), "sent", actor="ada", reason="seen")
    assert not Inquiry.objects.exists()


def test_an_inquiry_whose_message_is_not_held_is_removed_when_it_is_due(doubted: UUID) -> None:
    Pending.objects.update(blocked=False)
    with steps.later(timedelta(seconds=AFTER + 1)):
        assert not taken()
    assert not Inquiry.objects.exists()


@pytest.mark.parametrize("receipt_comes", ["before the time-out is recorded", "after it"])
def test_what_a_receipt_showed_to_be_another_message_is_not_found_as_this_one(shop: Caller, receipt_comes: str) -> None:
    """Two messages of the same text to one person, both without an answer; the vendor has only one of them."""
    ours, lost = steps.accept(shop.service, 2)
    claimed = {message.id: message for message in steps.claim()}
    steps.begun(list(claimed.values()))

    def receipt() -> None:
        steps.receive(steps.message(ours), ReceiptKind.SENT, "e1", provider_message_id="SM1")

    if receipt_comes.startswith("before"):
        receipt()
    for message_id in (ours, lost):
        steps.record(claimed[message_id], steps.REFUSALS["in_doubt"], POLICY)
    if receipt_comes.startswith("after"):
        receipt()
    with steps.later(timedelta(seconds=AFTER + 1)):
        for asked in taken():
            concluded(asked, FOUND)
    assert (steps.message(ours).status, steps.message(lost).status) == ("sent", "in_doubt")


def test_a_receipt_during_a_repeat_belongs_to_the_attempt_in_doubt(shop: Caller) -> None:
    """The repeat will have an id of its own, which must not take the place of the first."""
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"], Policy())
    with steps.later(timedelta(seconds=30)):
        (claimed,) = steps.claim()
        steps.begun([claimed])
        steps.receive(steps.message(message_id), ReceiptKind.SENT, "e1", provider_message_id="SM1")
        steps.record(claimed, Outcome(provider_message_id="SM2"))
    attempts = Attempt.objects.filter(message_id=message_id).order_by("number")
    assert [attempt.provider_message_id for attempt in attempts] == ["SM1", "SM2"]
