"""service, account, endpoint, route, template, suppress: what they make, what they print, and that mistakes change nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import load_command_class
from standardwebhooks import Webhook

from deliveries.delivery.accounts import owner
from deliveries.models import Account, ApiKey, Audit, Endpoint, Route, Service, Suppression, Template
from deliveries.secrets import split_key, unseal
from tests.api.calls import SMS, Api, nothing_stored
from tests.commands.shell import refused, run, same_shape
from tests.factories import Caller, make_account, make_caller

TWILIO = ("--option", "account_sid=AC1", "--option", "from_number=+15550100", "--secret", "auth_token=canary-token")


def example(name: str, verb: str = "") -> object:
    return load_command_class("deliveries", name).examples[verb]  # type: ignore[attr-defined]


def test_a_service_gets_an_id_and_a_key_that_works(db: None) -> None:
    said = run("service", "create", "shop", "--json")
    assert (said.code, set(said.json)) == (0, {"id", "name", "api_key"})
    service = Service.objects.get()
    assert (said.json["id"], said.json["name"], service.test) == (service.pk, "shop", False)
    assert Api(Caller(service, said.json["api_key"])).get("me").json()["name"] == "shop"
    assert [entry.action for entry in Audit.objects.order_by("pk")] == ["service_create", "key_create"]


def test_without_json_the_key_alone_is_on_stdout(db: None) -> None:
    said = run("service", "create", "shop")
    assert split_key(said.out.strip())
    assert "shown this once" in said.err


def test_a_test_service_has_test_keys(db: None) -> None:
    assert run("service", "create", "try", "--test", "--json").json["api_key"].startswith("ck_test_")
    assert Service.objects.get().test is True


def test_a_service_rotates_its_keys(shop: Caller) -> None:
    second = run("service", "key", "shop", "--json").json
    assert same_shape(example("service", "key"), second)
    first_id = shop.key.split("_")[2]
    assert run("service", "list", "--json").json == [
        {
            "id": shop.service.pk,
            "name": "shop",
            "test": False,
            "keys": [first_id, second["api_key"].split("_")[2]],
            "order_wait_seconds": None,
            "order_then": "skip",
        }
    ]
    said = run("service", "revoke", first_id, "--json")
    assert said.json == {"key_id": first_id, "revoked": True}
    assert run("service", "list", "--json").json[0]["keys"] == [second["api_key"].split("_")[2]]
    with nothing_stored():
        refused(run("service", "revoke", first_id), "no active key", "service list")


def test_a_key_can_end_by_itself(shop: Caller) -> None:
    run("service", "key", "shop", "--expires-in", "90d")
    key = ApiKey.objects.latest("pk")
    assert key.expires_at is not None
    assert abs(key.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)


def test_a_service_says_what_a_blocked_message_means_for_those_behind_it(shop: Caller) -> None:
    said = run("service", "order", "shop", "--wait", "5m", "--then", "fail_rest", "--json")
    assert said.json == {"name": "shop", "order_wait_seconds": 300, "order_then": "fail_rest"}
    assert "300 s" in said.err
    assert run("service", "list", "--json").json[0]["order_wait_seconds"] == 300
    said = run("service", "order", "shop")
    assert "until that one ends" in said.err
    assert Service.objects.get().order_wait_seconds is None
    assert [entry.action for entry in Audit.objects.order_by("pk")] == ["service_order", "service_order"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("order", "shop", "--wait", "soon"), ("--wait", "90s, 5m, 1h or 7d")),
        (("order", "shop", "--wait", "0s"), ("--wait", "1")),
        (("order", "shop", "--wait", "31d"), ("--wait", "2592000")),
        (("order", "shop", "--then", "wait"), ("invalid choice",)),
        (("create", "shop"), ("already exists",)),
        (("create", "a shop"), ("letters, numbers",)),
        (("create", "x" * 65), ("64",)),
        (("create",), ("NAME",)),
        (("key", "none"), ("there is no service 'none'", "shop")),
        (("key", "shop", "--expires-in", "soon"), ("90s, 5m, 1h or 7d",)),
        (("key", "shop", "--expires-in", "999999999999d"), ("longer than",)),
        ((), ("verb",)),
        (("destroy", "shop"), ("invalid choice",)),
    ],
)
def test_a_service_that_cannot_be_made_is_refused(
    shop: Caller, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with nothing_stored():
        refused(run("service", *arguments), *words)


def test_an_account_is_made_with_its_secrets_sealed(shop: Caller) -> None:
    said = run("account", "create", "sms", "twilio", "main", *TWILIO, "--priority", "3", "--in-doubt", "hold", "--json")
    account = Account.objects.get()
    assert said.json == {
        "id": account.pk,
        "name": "main",
        "channel": "sms",
        "provider": "twilio",
        "receipts_url": f"http://127.0.0.1:8000/receipts/{account.public_id}",
    }
    assert same_shape(example("account", "create"), said.json)
    assert (account.service, account.priority, account.in_doubt_policy) == (None, 3, "hold")
    assert unseal(owner(account.public_id), bytes(account.secrets)) == {"auth_token": "canary-token"}
    assert "canary-token" not in json.dumps(account.options) + said.out + said.err
    assert b"canary-token" not in bytes(account.secrets)


def test_a_secret_given_as_an_option_is_sealed_too(shop: Caller) -> None:
    run("account", "create", "sms", "twilio", "main", *[part.replace("--secret", "--option") for part in TWILIO])
    assert "auth_token" not in Account.objects.get().options


def test_an_account_may_have_an_owner_and_no_receipts(shop: Caller) -> None:
    said = run("account", "create", "sms", "sandbox", "main", "--service", "shop", "--json")
    assert said.json["receipts_url"] is None
    assert Account.objects.get().service == shop.service
    listed = run("account", "list", "--json").json
    assert same_shape(example("account", "list"), listed)
    assert [row["service"] for row in listed] == ["shop"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pigeon", "twilio", "x"), ("no provider 'twilio' for channel 'pigeon'",)),
        (("sms", "nobody", "x"), ("no provider 'nobody'", "twilio")),
        (("sms", "twilio", "x"), ("account_sid", "--option name=value")),
        (("sms", "twilio", "x", *TWILIO, "--option", "colour=red"), ("colour", "no such option")),
        (
            ("webhook", "webhook", "x", "--secret", f"secret=whsec_{'A' * 32}", "--in-doubt", "reconcile"),
            ("webhook cannot be asked", "retry or hold"),
        ),
        (("sms", "twilio", "x", "--option", "account_sid"), ("not of the form name=value",)),
        (("sms", "sandbox", "x", "--service", "none"), ("no service 'none'",)),
        (("sms", "sandbox", "two words"), ("letters, numbers",)),
        (("sms", "sandbox", "taken"), ("account 'taken'", "already", "another name")),
        (("sms", "sandbox", "x", "--priority", "high"), ("invalid int",)),
        (("sms", "sandbox", "x", "--priority", "40000"), ("priority",)),
        (("sms", "sandbox", "x", "--in-doubt", "guess"), ("invalid choice",)),
    ],
)
def test_an_account_that_cannot_work_is_refused(
    shop: Caller, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    make_account("sms", name="taken")
    with nothing_stored():
        refused(run("account", "create", *arguments), *words)


def test_an_endpoint_is_set_with_a_secret_that_signs(shop: Caller) -> None:
    said = run(
        "endpoint", "set", "shop", "https://shop.example.com/x", "--events", "sent,delivered", "failed", "--json"
    )
    assert same_shape(example("endpoint", "set"), said.json)
    assert said.json["events"] == ["sent", "delivered", "failed"]
    Webhook(said.json["secret"])
    endpoint = Endpoint.objects.get()
    assert (endpoint.url, endpoint.events, endpoint.active) == ("https://shop.example.com/x", said.json["events"], True)
    account = endpoint.account
    assert unseal(owner(account.public_id), bytes(account.secrets)) == {"secret": said.json["secret"]}


def test_a_new_secret_and_the_one_before_sign_together(shop: Caller) -> None:
    first, second = (
        run("endpoint", "set", "shop", url, "--json").json["secret"]
        for url in ("https://one.example.com/", "https://two.example.com/")
    )
    account = Endpoint.objects.get().account
    assert unseal(owner(account.public_id), bytes(account.secrets)) == {"secret": second, "previous_secret": first}
    assert Account.objects.count() == 1


def test_an_endpoint_is_turned_off(shop: Caller) -> None:
    run("endpoint", "set", "shop", "https://shop.example.com/x")
    said = run("endpoint", "off", "shop", "--json")
    assert said.json == {"service": "shop", "changed": True}
    assert Endpoint.objects.get().active is False
    assert run("endpoint", "off", "shop", "--json").json["changed"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "none", "https://a.example.com"), ("no service 'none'",)),
        (("set", "shop", "http://a.example.com"), ("https://",)),
        (("set", "shop", "https://10.0.0.1/"), ("private",)),
        (("set", "shop", "https://u:p@a.example.com/"), ("user name",)),
        (("set", "shop", "https://a.example.com", "--events", "done"), ("no event done", "delivered")),
        (("off", "none"), ("no service 'none'",)),
    ],
)
def test_an_endpoint_that_cannot_be_called_is_refused(
    shop: Caller, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with nothing_stored():
        refused(run("endpoint", *arguments), *words)


def test_an_account_that_happens_to_be_called_callbacks_is_left_alone(shop: Caller) -> None:
    make_account("sms", name="callbacks", service=shop.service)
    with nothing_stored():
        refused(run("endpoint", "set", "shop", "https://a.example.com"), "'callbacks'", "sms")
    assert Account.objects.get().channel == "sms"


def test_routes_are_replaced_as_a_whole(shop: Caller) -> None:
    for name in ("one", "two"):
        make_account("sms", name=name, service=shop.service)
    said = run("route", "set", "shop", "sms", "one:3", "two", "--json")
    assert same_shape(example("route", "set"), said.json)
    assert list(Route.objects.order_by("pk").values_list("account__name", "weight")) == [("one", 3), ("two", 1)]
    run("route", "set", "shop", "sms", "two:9")
    assert list(Route.objects.values_list("account__name", "weight")) == [("two", 9)]
    assert "its default" in run("route", "set", "shop", "sms").err
    assert not Route.objects.exists()


@pytest.mark.parametrize(
    ("accounts", "words"),
    [
        (("none",), ("no account 'none'",)),
        (("one", "theirs"), ("no account 'theirs'",)),
        (("post",), ("serves email, not sms",)),
        (("one:x",), ("'one:x'", "whole number")),
        (("one:",), ("'one:'", "whole number")),
        (("one:0",), ("stand in for",)),
        (("one:-1",), ("from 0 to 1000",)),
        (("one:99999",), ("from 0 to 1000",)),
        (("one:²",), ("whole number",)),
        (("one", "one:2"), ("'one' is named twice",)),
    ],
)
def test_a_route_that_cannot_work_leaves_the_old_ones(
    shop: Caller, accounts: tuple[str, ...], words: tuple[str, ...]
) -> None:
    make_account("sms", name="one", service=shop.service)
    make_account("email", name="post", service=shop.service)
    make_account("sms", name="theirs", service=make_caller("other").service)
    run("route", "set", "shop", "sms", "one:5")
    with nothing_stored():
        refused(run("route", "set", "shop", "sms", *accounts), *words)
    assert Route.objects.get().weight == 5


def test_a_template_gets_a_version_each_time(api: Api) -> None:
    said = run("template", "put", "shop", "hi", "sms", "--text", "Hola {{ name }}", "--json")
    assert said.json == {"name": "hi", "version": 1, "variables": ["name"]}
    assert run("template", "put", "shop", "hi", "sms", "--text", "Buenas {{ name }}", "--json").json["version"] == 2
    assert (
        run("template", "put", "shop", "hi", "sms", "--language", "en", "--text", "Hi", "--json").json["version"] == 1
    )
    body = {"channel": "sms", "to": SMS["to"], "template": "hi", "context": {"name": "Ana"}}
    assert api.send(**body, text=None)["text"] == "Buenas Ana"
    assert api.send(**body, text=None, language="en")["text"] == "Hi"
    assert api.send(**body, text=None, language="fr")["text"] == "Buenas Ana"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shop", "hi", "sms"), ("--text", "html must be given")),
        (("shop", "hi", "sms", "--text", "{% if x %}"), ("--text", "no tags")),
        (("shop", "hi", "sms", "--html", "{{ x|safe }}"), ("--html", "filters")),
        (("shop", "two words", "sms", "--text", "x"), ("letters, numbers",)),
        (("shop", "x" * 65, "sms", "--text", "x"), ("64",)),
        (("shop", "hi", "sms", "--text", "x", "--language", "x" * 17), ("16",)),
        (("shop", "hi", "pigeon", "--text", "x"), ("invalid choice",)),
        (("none", "hi", "sms", "--text", "x"), ("no service 'none'",)),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(
    shop: Caller, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with nothing_stored():
        refused(run("template", "put", *arguments), *words)
    assert not Template.objects.exists()


def test_a_recipient_is_suppressed_for_all_or_for_one_service(shop: Caller) -> None:
    said = run("suppress", "sms", "+56 9 1234 5678", "--json")
    assert said.json == {"channel": "sms", "to": "+56912345678", "changed": True}
    run("suppress", "sms", "+56912345678", "--service", "shop", "--reason", "asked")
    assert run("suppress", "sms", "+56912345678", "--json").json["changed"] is False
    kept = Suppression.objects.order_by("pk").values_list("recipient", "service", "reason")
    assert list(kept) == [("+56912345678", None, "asked by an operator"), ("+56912345678", shop.service.pk, "asked")]
    assert run("unsuppress", "sms", "+56912345678", "--json").json["changed"] is True
    assert run("unsuppress", "sms", "+56912345678").err.strip() == "It was not suppressed."
    assert Suppression.objects.count() == 1


@pytest.mark.parametrize("name", ["suppress", "unsuppress"])
def test_whom_it_is_about_must_be_known(shop: Caller, name: str) -> None:
    with nothing_stored():
        refused(run(name, "sms", "123"), "'123'", "+56912345678")
        refused(run(name, "pigeon", "123"), "invalid choice")
        refused(run(name, "sms", "+56912345678", "--service", "none"), "no service 'none'")
