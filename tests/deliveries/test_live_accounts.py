"""The accounts as a worker reads them: one that cannot be used says why and holds up no other; old providers are given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import structlog

from channels.http import HttpClient
from channels.twilio import Twilio
from deliveries import findings
from deliveries.conf import timings
from deliveries.delivery.accounts import Accounts, LiveAccount, owner
from deliveries.delivery.database import EngineConnection
from deliveries.models import Account
from deliveries.secrets import seal
from tests.factories import make_account

pytestmark = pytest.mark.django_db(transaction=True)

OPTIONS = {"account_sid": "AC" + "0" * 32, "from_number": "+12025550100"}
SECRETS = {"auth_token": "contraseña"}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def good() -> Account:
    return make_account("sms", name="good")


@pytest.fixture
def bad() -> Account:
    return make_account("sms", "twilio", "bad", options=OPTIONS, secrets=SECRETS)


def read(accounts: Accounts, *wanted: Account) -> Mapping[int, LiveAccount]:
    """As a worker reads them."""
    with closing(EngineConnection()) as engines, engines.transaction() as cursor:
        return accounts.get(cursor, [account.pk for account in wanted])


@pytest.mark.parametrize(
    ("options", "secrets", "reason"),
    [
        (OPTIONS, {"auth_token": "contrase\udcf1a"}, "auth_token: "),
        ({**OPTIONS, "from_number": 587}, SECRETS, "from_number: "),
        (["from_number"], SECRETS, "TypeError"),
        ("from_number", SECRETS, "TypeError"),
    ],
    ids=["half a character", "a number", "a list", "a text"],
)
def test_an_account_that_cannot_be_made_says_why_and_holds_up_no_other(
    options: Any, secrets: dict[str, str], reason: str, good: Account, bad: Account, loop: asyncio.AbstractEventLoop
) -> None:
    """What somebody with SQL, or an earlier release, may have left in the row."""
    bad.options, bad.secrets = options, seal(owner(bad.public_id), secrets)
    bad.save()
    found = read(Accounts(HttpClient(), loop), good, bad)
    assert found[good.pk].provider is not None
    assert found[bad.pk].provider is None
    assert reason in found[bad.pk].problem
    assert "contrase" not in found[bad.pk].problem
    assert [finding.found for finding in findings.accounts() if reason in finding.found], "the doctor says it too"


def test_a_provider_whose_own_code_fails_holds_up_no_other_account(
    good: Account, bad: Account, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("contraseña")

    monkeypatch.setattr(Twilio, "__init__", fails)
    with structlog.testing.capture_logs() as logs:
        found = read(Accounts(HttpClient(), loop), good, bad)
    assert found[good.pk].provider is not None
    assert "RuntimeError" in found[bad.pk].problem
    assert "contrase" not in found[bad.pk].problem
    assert [(log["event"], log["account"]) for log in logs] == [("account_unusable", bad.pk)]


def test_what_an_old_provider_cannot_give_back_is_logged_and_the_rest_is_given_back(
    good: Account, bad: Account, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    begun = asyncio.Event()

    async def fails(self: Twilio) -> None:
        closed.append(self.name)
        begun.set()
        raise ConnectionResetError

    async def closes(_: HttpClient) -> None:
        closed.append("http")

    monkeypatch.setattr(Twilio, "close", fails)
    monkeypatch.setattr(HttpClient, "close", closes)
    monkeypatch.setattr(Twilio, "lease_seconds", 0.0)
    monkeypatch.setattr("deliveries.delivery.accounts.timings", lambda: replace(timings(), account_cache_seconds=-1.0))
    accounts = Accounts(HttpClient(), loop)
    read(accounts, bad)
    bad.save()  # changed, so that its provider is another one from now on
    read(accounts, bad)

    with structlog.testing.capture_logs() as logs:
        loop.run_until_complete(asyncio.wait_for(begun.wait(), 5))
        loop.run_until_complete(accounts.close())
    assert closed == ["twilio", "twilio", "http"]
    assert [log["event"] for log in logs] == ["provider_not_closed"] * 2
