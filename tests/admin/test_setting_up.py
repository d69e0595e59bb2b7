"""Accounts, services, keys, endpoints, routes and templates in the admin: checked as the commands check, secrets shown once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from deliveries.delivery.accounts import owner
from deliveries.models import Account, ApiKey, Audit, Endpoint, Message, Pause, Route, Service, Suppression, Template
from deliveries.secrets import split_key, unseal
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.factories import Caller

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


def test_a_new_key_is_shown_once_and_works(boss: Client, service: Service, client: Client) -> None:
    answer = boss.post(address(service, "key"))
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'chaski-secret">(ck_live_[^<]+)<', answer.content.decode())
    assert found is not None
    key = found.group(1)
    assert split_key(key) is not None
    assert client.get("/api/v1/me", headers={"Authorization": f"Bearer {key}"}).json()["name"] == "shop"
    for path in (address(service), "/admin/deliveries/apikey/", address(ApiKey.objects.latest("pk"))):
        assert key.split("_")[3] not in boss.get(path).content.decode()
    assert Audit.objects.get(action="key_create").target == f"service:{service.pk}"


def test_a_key_is_revoked_with_a_reason(boss: Client, service: Service) -> None:
    key = ApiKey.objects.get(service=service)
    boss.post(address(key, "revoke"), {"reason": ""})
    key.refresh_from_db()
    assert key.revoked_at is None
    boss.post(address(key, "revoke"), {"reason": "it was in a log"})
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert Audit.objects.get(action="key_revoke").reason == "it was in a log"
    assert "it was revoked before" in boss.post(address(key, "revoke"), {"reason": "x"}, follow=True).content.decode()


def test_keys_are_for_security_alone(enter: Enter, service: Service) -> None:
    operator, security = enter("operator"), enter("security")
    assert operator.post(address(service, "key")).status_code == 403
    assert operator.get("/admin/deliveries/apikey/").status_code == 403
    assert security.get(address(service, "key")).status_code == 405
    assert security.post(address(service, "key")).status_code == 200


def test_an_endpoint_is_set_with_a_secret_that_is_shown_once(boss: Client, service: Service) -> None:
    given = {"service": service.pk, "url": "http://127.0.0.1:9/hook", "events": ["failed"], "active": "on"}
    html = boss.post("/admin/deliveries/endpoint/add/", given).content.decode()
    found = re.search(r'chaski-secret">(whsec_[^<]+)<', html)
    assert found is not None
    endpoint = Endpoint.objects.get()
    assert (endpoint.url, endpoint.events, endpoint.active) == ("http://127.0.0.1:9/hook", ["failed"], True)
    assert secrets_of(endpoint.account) == {"secret": found.group(1).replace("&#x3D;", "=")}
    changed = boss.post(address(endpoint), given | {"url": "http://127.0.0.1:9/other"})
    assert changed.status_code == 302
    assert secrets_of(endpoint.account) == {"secret": found.group(1)}, "a new URL is no new secret"
    again = boss.post(address(endpoint, "secret")).content.decode()
    assert found.group(1) not in again
    assert secrets_of(endpoint.account)["secret"] in again


def test_a_url_that_callbacks_may_not_reach_is_refused(boss: Client, service: Service) -> None:
    given = {"service": service.pk, "url": "https://169.254.169.254/", "active": "on"}
    assert "It must not point to" in boss.post("/admin/deliveries/endpoint/add/", given).content.decode()
    assert not Endpoint.objects.exists()


def test_a_route_takes_the_channel_of_an_account_that_the_service_may_use(
    boss: Client, service: Service, other: Caller, account: Callable[..., Account]
) -> None:
    theirs = account("sms", "sandbox", "theirs", service=other.service)
    shared = Account.objects.get(name="texts")
    given = {"service": service.pk, "account": theirs.pk, "weight": 1, "position": 0}
    assert "It belongs to another service." in boss.post("/admin/deliveries/route/add/", given).content.decode()
    assert boss.post("/admin/deliveries/route/add/", given | {"account": shared.pk}).status_code == 302
    route = Route.objects.get()
    assert (route.channel, route.account) == ("sms", shared)
    assert Audit.objects.get(action="route_create").target == f"route:{route.pk}"
    assert boss.post(address(route, "delete"), {"post": "yes"}).status_code == 302
    assert Audit.objects.filter(action="route_delete").exists()


def test_a_template_gets_the_next_version_and_stays(boss: Client, service: Service) -> None:
    given = {"service": service.pk, "name": "welcome", "channel": "sms", "language": "", "text": "Hi {{ name }}"}
    for version in (1, 2):
        assert boss.post("/admin/deliveries/template/add/", given).status_code == 302
        assert Template.objects.latest("pk").version == version
    refused = boss.post("/admin/deliveries/template/add/", given | {"text": "{% debug %}"}).content.decode()
    assert "no tags, filters or expressions" in refused
    first = Template.objects.earliest("pk")
    assert boss.post(address(first), given | {"text": "other"}).status_code == 403
    assert Audit.objects.filter(action="template_put").count() == 2


def test_a_service_is_made_and_its_kind_stays(boss: Client) -> None:
    boss.post("/admin/deliveries/service/add/", {"name": "trial", "test": "on"})
    trial = Service.objects.get(name="trial")
    assert trial.test
    boss.post(address(trial), {"name": "trial"})
    trial.refresh_from_db()
    assert trial.test
    assert boss.post(address(trial, "delete"), {"post": "yes"}).status_code == 403


def test_everything_is_paused_from_the_admin_and_let_go(enter: Enter, service: Service) -> None:
    operator = enter("operator", name="ana")
    add = "/admin/deliveries/pause/add/"
    assert operator.post(add, {"scope": "all", "value": "", "reason": "a bad template went out"}).status_code == 302
    pause = Pause.objects.get()
    assert (pause.scope, pause.actor) == ("all", "admin:ana")
    assert "Paused: everything" in operator.get("/admin/").content.decode()
    assert operator.post(address(pause, "delete"), {"post": "yes"}).status_code == 302
    assert not Pause.objects.exists()
    acts = list(Audit.objects.order_by("pk").values_list("action", "reason"))
    assert acts == [("pause", "a bad template went out"), ("resume", "")]


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        ("all", "sms"),
        ("channel", "pigeon"),
        ("account", "999999"),
        ("service", "shop"),
        ("batch", "7"),
        ("account", "²"),
    ],
)
def test_a_pause_of_what_is_not_there_is_refused(boss: Client, service: Service, scope: str, value: str) -> None:
    answer = boss.post("/admin/deliveries/pause/add/", {"scope": scope, "value": value, "reason": "x"})
    assert answer.status_code == 200
    assert not Pause.objects.exists()


def test_pauses_are_listed_with_the_names_of_what_they_hold(
    boss: Client, service: Service, django_assert_max_num_queries: Any
) -> None:
    texts = Account.objects.get(name="texts")
    for scope, value in (("account", texts.pk), ("service", service.pk), ("channel", "sms"), ("all", "")):
        Pause.objects.create(scope=scope, value=str(value))
    with django_assert_max_num_queries(6):
        html = boss.get("/admin/deliveries/pause/").content.decode()
    assert f"texts ({texts.pk})" in html
    assert f"shop ({service.pk})" in html


def test_a_recipient_is_suppressed_in_its_normalised_form_and_let_off(enter: Enter, service: Service) -> None:
    operator = enter("operator", name="ana")
    add = "/admin/deliveries/suppression/add/"
    given = {"channel": "sms", "recipient": "+56 9 1234 5678", "service": service.pk, "reason": "asked by phone"}
    assert operator.post(add, given).status_code == 302
    kept = Suppression.objects.get()
    assert (kept.recipient, kept.service, kept.actor) == ("+56912345678", service, "admin:ana")
    assert "It is not an international phone number" in operator.post(add, given | {"recipient": "5"}).content.decode()
    found = operator.get("/admin/deliveries/suppression/", {"q": "56912345678"}).content.decode()
    assert address(kept) in found
    assert address(kept) not in operator.get("/admin/deliveries/suppression/", {"q": "+56900000000"}).content.decode()
    assert operator.post(address(kept, "delete"), {"post": "yes"}).status_code == 302
    assert not Suppression.objects.exists()
    audits = Audit.objects.filter(action__in=["suppress", "unsuppress"])
    assert audits.count() == 2
    assert "56912345678" not in str(list(audits.values()))


def test_a_batch_counts_its_messages_and_links_to_them(boss: Client, service: Service) -> None:
    from deliveries.models import Batch

    batch = Batch.objects.create(service=service)
    waiting, under_way, failed = rows.accept_many(service, 3)
    Message.objects.filter(pk__in=[waiting.pk, under_way.pk, failed.pk]).update(batch=batch)
    from deliveries.models import Pending

    Pending.objects.update(batch_id=batch.pk)
    rows.lease(under_way)
    rows.failed(failed)
    html = boss.get(address(batch)).content.decode()
    assert "1 failed, 1 queued, 1 sending" in html
    assert f'href="/admin/deliveries/message/?q={batch.pk}"' in html
