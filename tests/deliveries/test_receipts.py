"""Receipts: late, twice, reversed, early, contradictory, of others. A message never goes back."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from django.db import connection, transaction

from channels.base import Receipt, ReceiptKind
from deliveries import receipts
from deliveries.models import Attempt, Event
from deliveries.models import Receipt as Kept
from deliveries.models.evidence import ReceiptEffect
from deliveries.retry import Outcome
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
SENT, DELIVERED, READ = ReceiptKind.SENT, ReceiptKind.DELIVERED, ReceiptKind.READ
UNDELIVERED, INFO = ReceiptKind.UNDELIVERED, ReceiptKind.INFO


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")


@pytest.mark.parametrize("order", list(permutations([SENT, DELIVERED, READ])))
def test_in_whatever_order_they_come_the_message_ends_read_and_never_goes_back(
    shop: Caller, order: tuple[ReceiptKind, ...]
) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    ranks = [_rank(message_id)]
    for kind in order:
        steps.receive(steps.message(message_id), kind)
        ranks.append(_rank(message_id))
    assert ranks == sorted(ranks)
    message = steps.message(message_id)
    assert message.status == "read"
    assert message.delivered_at is not None


def _rank(message_id: object) -> int:
    return ["sent", "delivered", "read"].index(steps.message(message_id).status)  # type: ignore[arg-type]


def test_the_same_provider_event_is_kept_once_however_often_it_comes(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    applied = [steps.receive(steps.message(message_id), DELIVERED, event_id="e1") for _ in range(3)]
    assert applied == [1, 0, 0]
    assert Kept.objects.count() == 1
    assert [event.status for event in Event.objects.order_by("sequence")] == ["queued", "sending", "sent", "delivered"]


def test_a_contradiction_changes_nothing_and_is_kept_to_be_seen(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    steps.receive(steps.message(message_id), DELIVERED)
    steps.receive(steps.message(message_id), UNDELIVERED)
    assert steps.message(message_id).status == "delivered"
    assert [kept.effect for kept in Kept.objects.order_by("pk")] == [ReceiptEffect.MOVED, ReceiptEffect.CONTRADICTION]


def test_proof_of_delivery_corrects_a_failure_as_an_event(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    steps.receive(steps.message(message_id), UNDELIVERED, code="30005")
    failed = steps.message(message_id)
    assert (failed.status, failed.error_class, failed.error_code) == ("undelivered", "recipient_refused", "30005")
    steps.receive(steps.message(message_id), DELIVERED)
    corrected = steps.message(message_id)
    assert (corrected.status, corrected.error_class) == ("delivered", "")
    assert Event.objects.order_by("-sequence")[0].actor == "provider"


def test_a_receipt_settles_a_doubt_and_nothing_is_sent_again(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"])
    assert steps.message(message_id).status == "queued", "due for its one blind repeat"
    steps.receive(steps.message(message_id), DELIVERED, provider_message_id="SM9")
    assert steps.message(message_id).status == "delivered"
    with steps.later(timedelta(minutes=5)):
        assert not steps.claim()
    assert Attempt.objects.get().provider_message_id == "SM9", "what the attempt could not learn"


def test_a_receipt_by_the_provider_s_id_finds_its_message(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome(provider_message_id="SM1"))
    _store_and_apply(steps.account_of(message_id).pk, Receipt("e1", DELIVERED, provider_message_id="SM1"))
    assert steps.message(message_id).status == "delivered"


def test_one_that_comes_before_its_send_is_recorded_waits_for_it(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    (claimed,) = steps.claim()
    steps.begun([claimed])
    account = steps.account_of(message_id).pk
    assert _store_and_apply(account, Receipt("e1", DELIVERED, provider_message_id="SM1")) == 0
    steps.record(claimed, Outcome(provider_message_id="SM1"))
    with steps.later(timedelta(seconds=1)):
        assert _apply() == 1
    assert steps.message(message_id).status == "delivered"


def test_strangers_receipts_hold_up_none_that_has_a_message(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome(provider_message_id="SM1"))
    account = steps.account_of(message_id).pk
    with transaction.atomic(), connection.cursor() as cursor:
        strangers = [Receipt(f"e{n}", DELIVERED, provider_message_id=f"nobody's {n}") for n in range(600)]
        receipts.store(cursor, [(account, strangers)])
        receipts.apply(cursor)
    assert _store_and_apply(account, Receipt("mine", DELIVERED, provider_message_id="SM1")) == 1
    assert steps.message(message_id).status == "delivered"


def test_one_that_belongs_to_no_message_is_marked_after_days_and_not_before(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    account = steps.account_of(message_id).pk
    assert _store_and_apply(account, Receipt("e1", DELIVERED, provider_message_id="nobody's")) == 0
    with steps.later(timedelta(days=2)):
        assert _apply() == 0
    with steps.later(timedelta(days=4)):
        assert _apply() == 1
    assert Kept.objects.get().effect == ReceiptEffect.UNMATCHED


def test_a_stranger_s_receipt_is_looked_at_some_dozens_of_times_in_three_days_and_soon_at_first(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    _store_and_apply(steps.account_of(message_id).pk, Receipt("e1", DELIVERED, provider_message_id="nobody's"))
    kept, waited, waits = Kept.objects.get(), timedelta(0), []
    while kept.applied_at is None:
        waits.append(kept.look_at - steps.now() - waited)
        waited += waits[-1] + timedelta(milliseconds=1)
        with steps.later(waited):
            _apply()
        kept.refresh_from_db()
    assert 72 <= waited / timedelta(hours=1) <= 78
    assert len(waits) <= 30
    assert waits[0] < timedelta(seconds=1)
    assert max(waits) < timedelta(hours=6, seconds=1)


def test_one_whose_send_is_recorded_hours_later_is_applied_then(shop: Caller) -> None:
    """A worker's machine was down, and what its calls gave lay in its spill."""
    (message_id,) = steps.accept(shop.service)
    (claimed,) = steps.claim()
    steps.begun([claimed])
    account = steps.account_of(message_id).pk
    assert _store_and_apply(account, Receipt("e1", DELIVERED, provider_message_id="SM1")) == 0
    with steps.later(timedelta(hours=5)):
        assert _apply() == 0
        steps.record(claimed, Outcome(provider_message_id="SM1"))
    with steps.later(timedelta(hours=10, minutes=1)):
        assert _apply() == 1
    assert steps.message(message_id).status == "delivered"


def test_a_receipt_of_one_account_never_moves_a_message_of_another(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome(provider_message_id="SM1"))
    stranger = make_account("sms", name="stranger")
    _store_and_apply(stranger.pk, Receipt("e1", DELIVERED, message_id=str(message_id)))
    _store_and_apply(stranger.pk, Receipt("e2", DELIVERED, provider_message_id="SM1"))
    assert steps.message(message_id).status == "sent"


@pytest.mark.parametrize("named", ["not a uuid", "", str(uuid4()), "' OR true --"])
def test_a_message_id_that_the_vendor_garbled_harms_nobody(shop: Caller, named: str) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    garbled = Receipt("e1", DELIVERED, "nobody's", named, detail="NUL \0 and half \ud800 a character")
    _store_and_apply(steps.account_of(message_id).pk, garbled)
    assert steps.message(message_id).status == "sent"
    assert Kept.objects.count() == 1


def test_ten_thousand_at_once_are_applied_in_batches_each_message_written_once(shop: Caller) -> None:
    ids = steps.accept(shop.service, 20)
    for message_id in ids:
        steps.send(message_id, Outcome(provider_message_id=f"SM{message_id}"))
    account = steps.account_of(ids[0]).pk
    many = [
        Receipt(f"{message_id}:{kind}:{n}", kind, f"SM{message_id}")
        for n in range(25)
        for kind in (READ, DELIVERED, SENT, INFO)
        for message_id in ids
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        assert receipts.store(cursor, [(account, many)]) == [2000]
    rounds = 0
    while _apply():
        rounds += 1
    assert rounds == 4
    assert {steps.message(message_id).status for message_id in ids} == {"read"}
    assert not Kept.objects.filter(applied_at=None).exists()


def _store_and_apply(account_id: int, receipt: Receipt) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(account_id, [receipt])])
        return receipts.apply(cursor).applied


def _apply() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        return receipts.apply(cursor).applied
