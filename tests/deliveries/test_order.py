"""Redelivered messages of an ordering key: behind what waits, and never beside what is in flight."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction

from channels.base import ReceiptKind
from deliveries import acts
from deliveries.intake.accept import lock_keys
from deliveries.retry import Policy
from tests.deliveries import steps
from tests.deliveries.test_locks import somebody_waits_for_a_lock
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

KEY = "cart-1"


@pytest.mark.django_db
def test_a_redelivered_message_waits_behind_the_one_in_flight_and_those_that_wait(shop: Caller) -> None:
    make_account("sms")
    first, second, third = steps.accept(shop.service, 3, ordering_key=KEY)
    steps.send(first, steps.REFUSALS["recipient_refused"])
    (under_way,) = steps.claim()
    assert under_way.id == second
    acts.redeliver(steps.message(first), actor="somebody")
    (last,) = steps.accept(shop.service, ordering_key=KEY)
    again = steps.pending(first)
    assert again is not None
    assert (again.blocked, again.waiting_for) == (True, "predecessor")
    assert not steps.claim(), "nothing goes beside what is in flight"
    steps.begun([under_way])
    steps.record(under_way, steps.ACCEPTED)
    order = []
    while claimed := steps.claim():
        (head,) = claimed
        steps.begun([head])
        steps.record(head, steps.ACCEPTED)
        order.append(head.id)
    assert order == [third, first, last]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", KEY])
def test_a_redelivered_message_that_nobody_is_before_goes_at_once(key: str, shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service, ordering_key="another")
    steps.claim()
    (message_id,) = steps.accept(shop.service, ordering_key=key)
    steps.send(message_id, steps.REFUSALS["recipient_refused"])
    acts.redeliver(steps.message(message_id), actor="somebody")
    assert [claimed.id for claimed in steps.claim()] == [message_id]


@pytest.mark.django_db(transaction=True)
def test_the_place_of_a_redelivered_message_is_drawn_under_the_lock_of_its_key(shop: Caller) -> None:
    """As intake draws it: or two would look at an empty queue at once, and both would go."""
    make_account("sms")
    (message_id,) = steps.accept(shop.service, ordering_key=KEY)
    steps.send(message_id, steps.REFUSALS["recipient_refused"])
    message = steps.message(message_id)

    def redeliver() -> None:
        try:
            acts.redeliver(message, actor="somebody")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as cursor:
            lock_keys(cursor, {(shop.service.pk, KEY)})
            done = pool.submit(redeliver)
            wait_for(somebody_waits_for_a_lock, 5, "the wait for the key")
            (before,) = steps.accept(shop.service, ordering_key=KEY)
        done.result(10)
    again = steps.pending(message_id)
    assert again is not None
    assert again.blocked
    assert [claimed.id for claimed in steps.claim()] == [before]


@pytest.mark.django_db
def test_a_receipt_that_ends_a_doubt_lets_the_next_one_go(shop: Caller) -> None:
    make_account("sms")
    first, second = steps.accept(shop.service, 2, ordering_key=KEY)
    steps.send(first, steps.REFUSALS["in_doubt"], Policy(hold_in_doubt=True))
    assert not steps.claim()
    steps.receive(steps.message(first), ReceiptKind.DELIVERED)
    assert [claimed.id for claimed in steps.claim()] == [second]


@pytest.mark.django_db
def test_a_late_acceptance_lets_the_next_one_go(shop: Caller) -> None:
    make_account("sms")
    first, second = steps.accept(shop.service, 2, ordering_key=KEY)
    (claimed,) = steps.claim()
    steps.begun([claimed])
    with steps.later(timedelta(seconds=61)):
        steps.swept()
        steps.record(claimed, steps.ACCEPTED)
        assert steps.message(first).status == "sent"
        assert [each.id for each in steps.claim()] == [second]
