"""One call to a provider: when it may begin."""

from __future__ import annotations

import asyncio
import time

import pytest

from channels.http import HttpClient
from channels.sandbox import Sandbox
from deliveries.delivery.accounts import LiveAccount
from deliveries.delivery.claim import Claimed, Claimer
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.sending import send
from deliveries.retry import Outcome, Policy
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def claimed(shop: Caller) -> Claimed:
    make_account("sms")
    steps.accept(shop.service)
    engines = EngineConnection()
    with engines.transaction() as cursor:
        (found,) = Claimer().claim(cursor, steps.request(cursor)).messages
    engines.close()
    return found


def sent(claimed: Claimed, seconds: float) -> Outcome:
    """What a call gave whose time is over in ``seconds``."""

    at = steps.now()

    async def call() -> Outcome:
        account = LiveAccount(1, "sms", at, Policy(), provider=Sandbox({}, HttpClient()))
        return await send(claimed, account, asyncio.get_running_loop().time() + seconds, time.monotonic())

    return asyncio.run(call())


def test_a_call_whose_time_is_over_does_not_begin_and_is_no_doubt(claimed: Claimed) -> None:
    """Its worker may have been stopped since the claim; the lease may be another's by now."""
    outcome = sent(claimed, -0.001)
    assert (outcome.error_class, outcome.code, outcome.written_at) == ("not_sent", "no_time_left", None)


def test_a_call_with_time_left_begins(claimed: Claimed) -> None:
    assert sent(claimed, 5).accepted
