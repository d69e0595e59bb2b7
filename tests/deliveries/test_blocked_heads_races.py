"""A blocked head between the look at it and what its service's rule makes of it: whoever is quicker is not overruled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from channels.base import ReceiptKind
from deliveries import acts
from deliveries.delivery import blocked_heads
from deliveries.delivery.blocked_heads import PREDECESSOR_BLOCKED, BlockedHeads
from deliveries.models import Pending
from deliveries.models.services import OrderThen
from tests.deliveries import steps
from tests.deliveries.test_blocked_heads import (
    KEY,
    Passes,
    asides,
    in_doubt,
    is_blocked,
    look,
    retried,
    rule,
    stop,
    violations,
)
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


def is_claimed(head: UUID, _: UUID) -> None:
    Pending.objects.filter(pk=head).update(due_at=steps.now())
    assert steps.claim(ids=[head])


def is_resolved_as_sent(head: UUID, _: UUID) -> None:
    acts.resolve(steps.message(head), "sent", actor="somebody", reason="seen")


def is_resolved_as_retry(head: UUID, _: UUID) -> None:
    acts.resolve(steps.message(head), "retry", actor="somebody", reason="not seen")


def is_proved_delivered(head: UUID, _: UUID) -> None:
    steps.receive(steps.message(head), ReceiptKind.DELIVERED)


def is_canceled(head: UUID, _: UUID) -> None:
    acts.cancel(steps.message(head), actor="somebody")


def next_is_canceled(_: UUID, second: UUID) -> None:
    acts.cancel(steps.message(second), actor="somebody")


def another_relay_was_quicker(_: UUID, __: UUID) -> None:
    with connection.cursor() as cursor:
        BlockedHeads().look(cursor)


BETWEEN = [
    (retried, is_claimed),
    (retried, is_canceled),
    (retried, next_is_canceled),
    (in_doubt, is_resolved_as_sent),
    (in_doubt, is_resolved_as_retry),
    (in_doubt, is_proved_delivered),
    (in_doubt, next_is_canceled),
    (in_doubt, another_relay_was_quicker),
]


@pytest.mark.parametrize("then", OrderThen)
@pytest.mark.parametrize(("block", "between"), BETWEEN)
def test_whoever_is_quicker_is_not_overruled(
    block: Callable[[UUID], None],
    between: Callable[[UUID, UUID], None],
    then: OrderThen,
    shop: Caller,
    passes: Passes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_account("sms")
    rule(shop.service, then)
    head, second = steps.accept(shop.service, 2, ordering_key=KEY)
    block(head)
    look()
    passes(61)
    act = "_let_pass" if then is OrderThen.SKIP else "_fail_rest"
    consequence = getattr(blocked_heads, act)
    done: list[int] = []

    def late(*given: Any) -> int:
        monkeypatch.setattr(blocked_heads, act, consequence)
        between(head, second)
        done.append(consequence(*given))
        return done[-1]

    monkeypatch.setattr(blocked_heads, act, late)
    look()
    assert done == [0]
    by_another = between is another_relay_was_quicker
    assert asides() == ([head] if by_another and then is OrderThen.SKIP else [])
    assert (steps.message(second).error_code == PREDECESSOR_BLOCKED) == (by_another and then is OrderThen.FAIL_REST)
    steps.swept()
    assert not [each for each in violations() if "ended long ago" not in each]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("table", "whose", "then"),
    [
        ("pending", "head", OrderThen.SKIP),
        ("pending", "second", OrderThen.SKIP),
        ("message", "head", OrderThen.SKIP),
        ("pending", "head", OrderThen.FAIL_REST),
        ("pending", "second", OrderThen.FAIL_REST),
        ("message", "second", OrderThen.FAIL_REST),
    ],
)
def test_a_row_that_somebody_holds_is_left_to_the_next_round(
    table: str, whose: str, then: OrderThen, shop: Caller, passes: Passes
) -> None:
    make_account("sms")
    rule(shop.service, then)
    ids = dict(zip(("head", "second"), steps.accept(shop.service, 2, ordering_key=KEY), strict=True))
    in_doubt(ids["head"])
    look()
    passes(61)
    own = connection.copy()
    try:
        own.set_autocommit(False)
        with own.cursor() as cursor:
            column = "message_id" if table == "pending" else "id"
            cursor.execute(f"SELECT FROM {table} WHERE {column} = %s FOR UPDATE", [ids[whose]])
        assert look() == 0
        own.rollback()
        assert look() == 1
    finally:
        own.close()


def test_a_head_that_went_to_another_account_meanwhile_keeps_its_place(
    shop: Caller, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, up = (make_account("sms", name=name, service=shop.service) for name in ("down", "up"))
    rule(shop.service, OrderThen.SKIP)
    (head,) = steps.accept(shop.service, ordering_key=KEY, account="down")
    (second,) = steps.accept(shop.service, ordering_key=KEY, account="up")
    stop(down)
    look()
    passes(61)
    let_pass = blocked_heads._let_pass

    def late(*given: Any) -> int:
        Pending.objects.filter(pk=head).update(account_id=up.pk)
        return let_pass(*given)

    monkeypatch.setattr(blocked_heads, "_let_pass", late)
    assert look() == 0
    assert not asides()
    assert is_blocked(second)
