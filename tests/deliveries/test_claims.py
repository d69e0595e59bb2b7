"""The claims of one process: two lanes of a channel share their accounts' room."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from channels.http import HttpClient
from chaski.vocabulary import Lane
from deliveries.delivery.accounts import Accounts
from deliveries.delivery.claim import Claimer, Request, Taken
from deliveries.delivery.claims import Claims
from deliveries.delivery.hands import Hand
from deliveries.delivery.window import Window
from deliveries.models import Account
from deliveries.sql import Cursor
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def claims(shop: Caller) -> Any:
    """With an account that has messages for more than one claim."""
    make_account("sms")
    for lane in ("normal", "bulk"):
        steps.accept(shop.service, 20, priority=lane)
    made = Claims("worker-of-a-test")
    yield made
    made.close()


def test_two_lanes_do_not_both_take_the_same_room(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(1_000, 10, follows=False)
    window.begin([Account.objects.get().pk])
    real, together = Claimer.claim, Barrier(2)

    def slow(claimer: Claimer, cursor: Cursor, request: Request) -> Taken:
        with suppress(BrokenBarrierError):
            together.wait(0.3)  # the other lane has time to get as far as it can
        return real(claimer, cursor, request)

    monkeypatch.setattr(Claimer, "claim", slow)
    claims._paused(claims._others)  # so that neither waits for that
    loop = asyncio.new_event_loop()
    accounts = Accounts(HttpClient(), loop)

    def claim(lane: Lane) -> Taken:
        return claims.claim(Hand("sms", lane, "task"), window, accounts, 20)

    with ThreadPoolExecutor(2) as lanes:
        taken = list(lanes.map(claim, (Lane.NORMAL, Lane.BULK)))
    loop.close()
    assert sum(len(each.messages) for each in taken) == 9


def test_an_account_rests_as_long_as_the_longest_of_its_answers_says(claims: Claims) -> None:
    window, account = Window(1_000, 10), Account.objects.get().pk
    claims.rest(account, 60.0)
    claims.rest(account, 0.0)
    loop = asyncio.new_event_loop()
    taken = claims.claim(Hand("sms", Lane.NORMAL, "task"), window, Accounts(HttpClient(), loop), 20)
    loop.close()
    assert taken.messages == []
