"""`accept` as the commands and the callbacks use it: the bell after the commit, one answer per draft in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from django.db import IntegrityError, transaction

from chaski.vocabulary import Lane
from deliveries import intake
from deliveries.doorbell import Doorbell
from deliveries.intake import Draft
from deliveries.models import Account, Message, Pending
from deliveries.models.messages import Origin
from tests.factories import Caller, make_account, make_caller

Rung = list[tuple[str, Lane, list[UUID]]]


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> Rung:
    """What was rung for, instead of ringing."""
    bells: Rung = []
    monkeypatch.setattr(Doorbell, "ring", lambda _, channel, lane, ids: bells.append((channel, lane, list(ids))))
    return bells


@pytest.fixture
def make(transactional_db: None) -> Callable[..., Draft]:
    shop = make_caller("shop")
    make_account("sms", service=shop.service)

    def draft(key: str = "", **fields: object) -> Draft:
        return intake.draft(shop.service, {"channel": "sms", "to": "+56912345678", "text": "x", **fields}, key=key)

    return draft


def test_the_bell_rings_once_per_lane_after_the_commit(make: Callable[..., Draft], rung: Rung) -> None:
    drafts = [make(), make(priority="urgent"), make(), make(send_at="2027-01-01T00:00:00Z")]
    intake.accept(drafts, origin=Origin.SHELL)
    assert rung == [("sms", Lane.NORMAL, [drafts[0].id, drafts[2].id]), ("sms", Lane.URGENT, [drafts[1].id])]


def test_in_a_transaction_of_the_caller_the_bell_waits_for_its_commit(make: Callable[..., Draft], rung: Rung) -> None:
    with transaction.atomic():
        intake.accept([make()], origin=Origin.SHELL)
        assert rung == []
    assert len(rung) == 1


def test_what_is_rolled_back_rings_for_nobody(make: Callable[..., Draft], rung: Rung) -> None:
    with transaction.atomic():
        intake.accept([make()], origin=Origin.SHELL)
        transaction.set_rollback(True)
    assert rung == []
    assert not Message.objects.exists()


def test_a_repeat_rings_for_nobody(make: Callable[..., Draft], rung: Rung) -> None:
    for _ in range(2):
        intake.accept([make("k")], origin=Origin.SHELL)
    assert len(rung) == 1


def test_each_draft_gets_its_own_answer_in_order(make: Callable[..., Draft], rung: Rung) -> None:
    first = make("a")
    intake.accept([first], origin=Origin.SHELL)
    taken = replace(make("b"), id=first.id)
    drafts = [make("a"), make("a", text="other"), taken, make("c"), make("c"), make()]
    answers = intake.accept(drafts, origin=Origin.SHELL)
    assert [answer.fresh for answer in answers] == [False, False, False, True, False, True]
    assert [type(answer.conflict).__name__ for answer in answers[1:3]] == ["IdempotencyConflict", "IdTaken"]
    assert answers[0].id == first.id
    assert answers[3].id == answers[4].id == drafts[3].id
    assert Message.objects.count() == Pending.objects.count() == 3


def test_a_mistake_of_ours_is_no_blame_of_the_caller(make: Callable[..., Draft], rung: Rung) -> None:
    with pytest.raises(IntegrityError):
        intake.accept([make(), replace(make(), recipient="")], origin=Origin.SHELL)
    assert sum(len(ids) for _, _, ids in rung) == Message.objects.count()


def test_a_month_without_a_partition_is_not_told_as_a_taken_id(make: Callable[..., Draft], rung: Rung) -> None:
    old = replace(make(), id=UUID("00000000-0000-7000-8000-000000000000"))
    with pytest.raises(IntegrityError, match="no partition"):
        intake.accept([old], origin=Origin.SHELL)


def test_no_drafts_are_no_work(db: None, rung: Rung, shop: Caller) -> None:
    assert intake.accept([], origin=Origin.SHELL) == []
    assert not Account.objects.exists()
