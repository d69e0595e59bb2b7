"""Canaries: what is private appears in no log line, no bell on the broker, and in nothing that another service gets."""

from __future__ import annotations

import base64
import json
import time
from io import StringIO
from typing import Any

import pytest
import redis
from django.conf import settings

from deliveries.cache import redis_url
from deliveries.models import Message
from deliveries.models.messages import LANES
from tests.api.calls import Api, problem
from tests.commands.shell import run
from tests.factories import make_account, make_caller

PHONE, WORDS = "+56987600013", "canary"
MAIL = f"{WORDS}.mail@example.com"
PRIVATE: dict[str, Any] = {
    "channel": "email",
    "to": MAIL,
    "subject": f"{WORDS} subject",
    "text": f"{WORDS} text",
    "html": f"<p>{WORDS} html</p>",
    "metadata": {"note": f"{WORDS} metadata"},
    "options": {"x": f"{WORDS} option"},
    "tags": [f"{WORDS} tag"],
    "reference": f"{WORDS} reference",
}
FORMS = (WORDS, PHONE, PHONE[1:], "9 8760 0013", "auth-canary")


def assert_clean(text: str, *but: str) -> None:
    for form in FORMS:
        if form not in but:
            assert form not in text, text


@pytest.fixture
def api(transactional_db: None) -> Api:
    shop = make_caller("shop")
    make_account("sms", service=shop.service)
    make_account("email", name="post", service=shop.service)
    return Api(shop)


def broker() -> redis.Redis:
    return redis.Redis.from_url(redis_url(settings.CHASKI_BROKER_URL))


def bells() -> list[str]:
    """The arguments of every task in the lanes' queues, and whatever else lies on the broker."""
    found = []
    with broker() as client:
        for key in client.scan_iter():
            kind = client.type(key)
            if kind == b"list":
                found += [text for bell in client.lrange(key, 0, -1) for text in (bell.decode(), arguments(bell))]
            elif kind == b"string":
                found.append((client.get(key) or b"").decode())
    return found


def arguments(bell: bytes) -> str:
    return base64.b64decode(json.loads(bell)["body"]).decode()


def test_bells_and_logs_hold_ids_and_nothing_private(api: Api, logged: StringIO) -> None:
    with broker() as client:
        client.delete(*map(str, LANES))  # a long queue is rung for without ids
    ids = [api.send(**PRIVATE)["id"], api.send(channel="sms", to=PHONE, text=WORDS)["id"]]
    begun = time.monotonic()
    while not all(any(message_id in bell for bell in bells()) for message_id in ids):  # the ringer has its own pace
        assert time.monotonic() - begun < 10
        time.sleep(0.02)
    assert Message.objects.count() == 2
    for bell in bells():
        assert_clean(bell)
    assert_clean(logged.getvalue())


def test_refusals_repeat_private_values_neither_in_logs_nor_to_others(api: Api, logged: StringIO) -> None:
    other = make_caller("other")
    make_account("sms", service=other.service)
    theirs = Api(other)
    sent = api.send(**PRIVATE, id=None)
    api.post("messages", {**PRIVATE, "text": f"{WORDS} other"}, key="k")
    for answer in (
        theirs.post("messages", {"channel": "sms", "to": PHONE, "text": WORDS, "id": sent["id"]}),
        theirs.get(f"messages/{sent['id']}"),
        theirs.post(f"messages/{sent['id']}/cancel"),
        theirs.get("messages", to=MAIL),
        theirs.get("messages", reference=PRIVATE["reference"]),
    ):
        assert_clean(answer.content.decode())
    problem(api.post("messages", {**PRIVATE, "channel": "sms"}), 422, "invalid_message")
    problem(api.post("messages", {**PRIVATE, "to": f"{WORDS}@"}), 422, "invalid_message")
    problem(api.post("messages", raw=f'{{"text": "{WORDS}'.encode()), 400, "malformed")
    api.post("batches", {"messages": [PRIVATE, {**PRIVATE, "to": WORDS}]})
    api.post("suppressions", {"channel": "sms", "to": PHONE, "reason": WORDS})
    api.post("previews", PRIVATE)
    api.get("messages", to=PHONE)
    assert_clean(logged.getvalue())


def test_secrets_of_accounts_and_keys_are_shown_once_and_logged_never(api: Api, logged: StringIO) -> None:
    made = run("service", "create", "canaries", "--json").json
    said = run(
        "account",
        "create",
        "sms",
        "twilio",
        "t",
        "--option",
        "account_sid=AC1",
        "--option",
        "from_number=+15550100",
        "--secret",
        "auth_token=auth-canary",
        "--json",
    )
    assert said.code == 0
    assert_clean(said.out + said.err + run("account", "list", "--json").out + run("doctor", "--json").out)
    secret = made["api_key"].split("_")[3]
    for shown in (run("service", "list", "--json").out, run("settings", "--json").out, logged.getvalue()):
        assert secret not in shown
    wrong = api.client.get("/api/v1/me", headers={"Authorization": f"Bearer {made['api_key'][:-1]}"})
    assert secret not in wrong.content.decode()
    assert secret not in logged.getvalue()
    assert_clean(logged.getvalue())


def test_one_line_ties_a_message_to_the_request_that_brought_it(api: Api, logged: StringIO) -> None:
    answer = api.post("messages", {"channel": "sms", "to": PHONE, "text": WORDS}, headers={"X-Request-Id": "r-42"})
    (line,) = [line for line in logged.getvalue().splitlines() if "message_accepted" in line]
    assert answer.json()["id"] in line
    assert "r-42" in line
