"""Accounts in the admin: asked for what their provider declares, kept as the command keeps them, their secrets never shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from deliveries.delivery.accounts import owner
from deliveries.models import Account, Audit, Pause
from deliveries.secrets import unseal
from tests.admin.conftest import Enter

TWILIO = {
    "name": "main",
    "service": "",
    "priority": "0",
    "in_doubt_policy": "retry",
    "blind_retries": "1",
    "option_account_sid": "AC" + "0" * 32,
    "option_auth_token": "s3cret-token",
    "option_from_number": "+15005550006",
    "option_messaging_service_sid": "",
    "option_base_url": "",
}
ADD = "/admin/deliveries/account/add/?provider=sms:twilio"


def address(row: Any, view: str = "change") -> str:
    return reverse(f"admin:deliveries_{row._meta.model_name}_{view}", args=[row.pk])


def secrets_of(account: Account) -> dict[str, str]:
    account.refresh_from_db()
    return unseal(owner(account.public_id), bytes(account.secrets))


@pytest.fixture
def twilio(db: None, boss: Client) -> Account:
    """An account made in the admin."""
    answer = boss.post(ADD, TWILIO)
    assert answer.status_code == 302, re.findall(r"errorlist.*?</ul>|text-red[^<]*<[^<]*", answer.content.decode())
    return Account.objects.get()


def test_adding_an_account_begins_with_the_choice_of_a_provider(boss: Client) -> None:
    html = boss.get("/admin/deliveries/account/add/").content.decode()
    assert 'href="?provider=sms:twilio"' in html
    assert 'href="?provider=email:sandbox"' in html
    assert "Which provider?" in boss.get("/admin/deliveries/account/add/?provider=sms:nobody").content.decode()


def test_the_form_asks_for_what_the_provider_declares(boss: Client) -> None:
    html = boss.get(ADD).content.decode()
    for name in TWILIO:
        assert f'name="{name}"' in html
    assert re.search(r'<input type="password" name="option_auth_token"', html)


def test_an_account_is_kept_as_the_command_keeps_it(twilio: Account, boss: Client) -> None:
    assert (twilio.channel, twilio.provider, twilio.name, twilio.service) == ("sms", "twilio", "main", None)
    assert twilio.options == {"account_sid": "AC" + "0" * 32, "from_number": "+15005550006"}
    assert secrets_of(twilio) == {"auth_token": "s3cret-token"}
    call_command(
        "account", "create", "sms", "twilio", "other", "--option", "account_sid=AC" + "0" * 32, "--option",
        "from_number=+15005550006", "--secret", "auth_token=s3cret-token",
    )  # fmt: skip
    same = Account.objects.get(name="other")
    assert (same.options, secrets_of(same)) == (twilio.options, secrets_of(twilio))
    assert [audit.action for audit in Audit.objects.order_by("pk")] == ["account_create"] * 2


def test_a_provider_that_cannot_be_asked_is_refused_the_policy_that_asks(boss: Client) -> None:
    path = "/admin/deliveries/account/add/?provider=telegram:telegram"
    ordinary = {name: value for name, value in TWILIO.items() if not name.startswith("option_")}
    filled = {**ordinary, "option_token": "1000000:simulated", "in_doubt_policy": "reconcile"}
    assert "telegram cannot be asked whether it has a message" in boss.post(path, filled).content.decode()
    assert not Account.objects.exists()
    assert boss.post(path, filled | {"in_doubt_policy": "hold"}).status_code == 302


def test_a_secret_is_never_shown_again(twilio: Account, boss: Client) -> None:
    for path in (address(twilio), address(twilio, "history"), "/admin/deliveries/account/", "/admin/deliveries/audit/"):
        assert "s3cret-token" not in boss.get(path).content.decode()
    wrong = boss.post(address(twilio), TWILIO | {"option_account_sid": ""}).content.decode()
    assert "twilio needs it" in wrong
    assert "s3cret-token" not in wrong


def test_an_empty_secret_keeps_the_stored_one_and_a_new_one_replaces_it(twilio: Account, boss: Client) -> None:
    assert boss.post(address(twilio), TWILIO | {"option_auth_token": "", "priority": "5"}).status_code == 302
    assert secrets_of(twilio) == {"auth_token": "s3cret-token"}
    assert twilio.priority == 5
    assert boss.post(address(twilio), TWILIO | {"option_auth_token": "another"}).status_code == 302
    assert secrets_of(twilio) == {"auth_token": "another"}
    audit = Audit.objects.filter(action="account_change").latest("pk")
    assert audit.target == f"account:{twilio.pk}"
    assert "another" not in str(audit.detail)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"option_from_number": ""}, "give either from_number or messaging_service_sid"),
        ({"option_auth_token": ""}, "twilio needs it"),
        ({"name": "not a slug!"}, "valid"),
    ],
)
def test_what_the_provider_refuses_is_said_at_its_field(boss: Client, wrong: dict[str, str], sentence: str) -> None:
    answer = boss.post(ADD, TWILIO | wrong)
    assert answer.status_code == 200
    assert sentence in answer.content.decode()
    assert not Account.objects.exists()


def test_secrets_that_no_key_opens_must_be_given_again(twilio: Account, boss: Client, settings: Any) -> None:
    settings.CHASKI_CREDENTIAL_KEYS = ["bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE="]
    assert "Give all of them again" in boss.post(address(twilio), TWILIO | {"option_auth_token": ""}).content.decode()
    assert boss.post(address(twilio), TWILIO).status_code == 302
    assert secrets_of(twilio) == {"auth_token": "s3cret-token"}


def test_a_stopped_account_says_why_and_is_resumed_with_a_reason(twilio: Account, boss: Client) -> None:
    Account.objects.update(stopped_at="2026-01-02T03:04:05Z", stopped_reason="20003: Authenticate")
    html = boss.get(address(twilio)).content.decode()
    assert "stopped at 2026-01-02 03:04:05 UTC: 20003: Authenticate" in html
    assert "20003" in boss.get("/admin/").content.decode()
    hold = address(twilio, "hold")
    assert "give a reason" in boss.post(hold, {"act": "resume", "reason": ""}, follow=True).content.decode()
    boss.post(hold, {"act": "resume", "reason": "new token"})
    twilio.refresh_from_db()
    assert (twilio.stopped_at, twilio.stopped_reason) == (None, "")
    assert Audit.objects.get(action="resume").reason == "new token"


def test_an_account_is_paused_and_resumed_by_those_who_may(twilio: Account, enter: Enter) -> None:
    operator, viewer = enter("operator"), enter("viewer")
    hold = address(twilio, "hold")
    assert viewer.post(hold, {"act": "pause", "reason": "x"}).status_code == 403
    operator.post(hold, {"act": "pause", "reason": "their maintenance"})
    assert Pause.objects.get().value == str(twilio.pk)
    assert "It is paused" in operator.get(address(twilio)).content.decode()
    operator.post(hold, {"act": "resume", "reason": "they are done"})
    assert not Pause.objects.exists()


def test_an_operator_reads_accounts_and_changes_none(twilio: Account, enter: Enter) -> None:
    operator = enter("operator")
    html = operator.get(address(twilio)).content.decode()
    assert "option_auth_token" not in html
    assert operator.post(address(twilio), TWILIO | {"priority": "9"}).status_code == 403
    assert operator.get(ADD).status_code == 403
