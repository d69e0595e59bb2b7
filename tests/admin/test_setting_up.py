"""Services, keys, endpoints, routes and templates in the admin: checked as the commands check, secrets shown once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deliveries.models import (
    Account,
    ApiKey,
    Audit,
    Batch,
    Endpoint,
    Message,
    Pause,
    Pending,
    Route,
    Service,
    Suppression,
    Template,
)
from deliveries.secrets import split_key
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.admin.test_accounts import address, secrets_of
from tests.factories import Caller


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


def test_a_service_gets_its_rule_for_a_blocked_head(boss: Client, service: Service) -> None:
    page = f"/admin/deliveries/service/{service.pk}/change/"
    boss.post(page, {"name": "shop", "order_wait_seconds": "300", "order_then": "fail_rest"})
    service.refresh_from_db()
    assert (service.order_wait_seconds, service.order_then) == (300, "fail_rest")
    assert Audit.objects.get(action="service_change").detail["fields"]
    for wrong in ({"order_wait_seconds": "0"}, {"order_wait_seconds": "2592001"}, {"order_then": "wait"}):
        boss.post(page, {"name": "shop", "order_wait_seconds": "5", "order_then": "skip", **wrong})
        service.refresh_from_db()
        assert (service.order_wait_seconds, service.order_then) == (300, "fail_rest")
    boss.post(page, {"name": "shop", "order_wait_seconds": "", "order_then": "skip"})
    service.refresh_from_db()
    assert (service.order_wait_seconds, service.order_then) == (None, "skip")


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
    batch = Batch.objects.create(service=service)
    waiting, under_way, failed = rows.accept_many(service, 3)
    Message.objects.filter(pk__in=[waiting.pk, under_way.pk, failed.pk]).update(batch=batch)
    Pending.objects.update(batch_id=batch.pk)
    rows.lease(under_way)
    rows.failed(failed)
    html = boss.get(address(batch)).content.decode()
    assert "1 failed, 1 queued, 1 sending" in html
    assert f'href="/admin/deliveries/message/?q={batch.pk}"' in html
