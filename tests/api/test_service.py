"""What a service sees of itself: me, previews, suppressions, the summary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chaski.vocabulary import Status
from deliveries.models import Account, Audit, Contact, Suppression, Template
from tests.api.calls import SMS, Api, move, nothing_stored, problem
from tests.deliveries import steps
from tests.factories import Caller, make_account, make_caller


def test_me_is_the_service_with_its_limits_and_usage(api: Api, theirs: Api) -> None:
    for _ in range(3):
        sent = api.send()
    theirs.send()
    move(sent["id"], Status.CANCELED)
    assert api.get("me").json() == {
        "id": api.caller.service.pk,
        "name": "shop",
        "test": False,
        "limits": {
            "message_bytes": 1_000_000,
            "file_bytes": 25_000_000,
            "batch_rows": 10_000,
            "batch_bytes": 10_000_000,
            "stream_rows": 1_000_000,
        },
        "ordering": {"wait_seconds": None, "then": "skip"},
        "usage": {"accepted_last_hour": 3, "unfinished": 2},
    }


@pytest.fixture
def template(api: Api) -> Template:
    return Template.objects.create(
        service=api.caller.service,
        name="hi",
        channel="email",
        language="",
        version=1,
        subject="Hola {{ name }}",
        html="<b>{{ name }}</b>",
        text="Hola {{ name }}",
    )


def test_a_preview_shows_what_would_be_sent_and_stores_nothing(api: Api, template: Template) -> None:
    asked = {"channel": "email", "to": "Ana@EXAMPLE.com", "template": "hi", "context": {"name": "<Ana>"}}
    with nothing_stored():
        answer = api.post("previews", asked)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["subject"], body["html"]) == ("Hola <Ana>", "<b>&lt;Ana&gt;</b>")
    assert (body["recipient"], body["account"], body["provider"]) == ("Ana@example.com", "post", "sandbox")
    assert (body["template"], body["template_version"]) == ("hi", 1)


def test_a_preview_tells_when_the_recipient_last_wrote_to_an_account_of_the_service(api: Api) -> None:
    asked, wrote = {"channel": "whatsapp", "to": "+56 9 1234 5678", "text": "x"}, steps.now()
    own = make_account("whatsapp", name="own", service=api.caller.service)
    assert api.post("previews", {**asked, "account": "own"}).json()["last_reply_at"] is None, "nobody told us"
    shared = make_account("whatsapp", name="shared")
    for account in (own, shared):
        Contact.objects.create(account_id=account.pk, person="+56912345678", replied_at=wrote)
    told = {
        name: api.post("previews", {**asked, "account": name}).json()["last_reply_at"] for name in ("own", "shared")
    }
    assert told["shared"] is None, "it may have been written to another service"
    assert datetime.fromisoformat(told["own"]) == wrote


@pytest.mark.parametrize("body", [{"channel": "email"}, [], "x", None, {**SMS, "to": "1"}])
def test_a_preview_of_what_could_not_be_sent_says_why(api: Api, body: Any) -> None:
    with nothing_stored():
        assert problem(api.post("previews", body), 422, "invalid_message")["errors"]


def test_a_recipient_is_suppressed_listed_and_freed(api: Api) -> None:
    one = api.post("suppressions", {"channel": "sms", "to": "+56 9 1234 5678", "reason": "asked"})
    again = api.post("suppressions", {"channel": "sms", "to": "+56912345678", "reason": "other"})
    assert (one.status_code, again.status_code) == (201, 200)
    assert one.json() == again.json()
    assert (one.json()["to"], one.json()["reason"]) == ("+56912345678", "asked")
    assert api.get("suppressions").json() == [one.json()]
    assert api.delete("suppressions", channel="sms", to="+56 912345678").status_code == 204
    assert api.get("suppressions").json() == []
    problem(api.delete("suppressions", channel="sms", to="+56912345678"), 404, "not_found")
    assert {act.actor for act in Audit.objects.all()} == {"service:shop"}
    assert not Audit.objects.filter(target__contains="569").exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "message"),
        (None, "message"),
        ("x", "message"),
        ({}, "channel"),
        ({"channel": "pigeon", "to": "x"}, "channel"),
        ({"channel": ["sms"], "to": "x"}, "channel"),
        ({"channel": "sms"}, "to"),
        ({"channel": "sms", "to": "1"}, "to"),
        ({"channel": "sms", "to": 56912345678}, "to"),
        ({"channel": "slack", "to": "\0"}, "to"),
        ({"channel": "slack", "to": "\ud800"}, "to"),
        ({"channel": "slack", "to": "C1", "reason": "\0"}, "reason"),
        ({"channel": "slack", "to": "C1", "reason": "\ud800"}, "reason"),
        ({"channel": "slack", "to": "C1", "reason": "x" * 501}, "reason"),
        ({"channel": "slack", "to": "C1", "service": None}, "service"),
    ],
)
def test_a_suppression_that_is_none_is_refused_by_field(api: Api, body: Any, field: str) -> None:
    with nothing_stored():
        assert field in problem(api.post("suppressions", body), 422, "invalid_suppression")["errors"]


@pytest.mark.parametrize(
    "query", [{}, {"channel": "sms"}, {"channel": "sms", "to": "1"}, {"channel": "pigeon", "to": "1"}]
)
def test_what_is_to_be_freed_must_be_named(api: Api, query: dict[str, str]) -> None:
    problem(api.delete("suppressions", **query), 422, "invalid_suppression")


def test_the_list_that_all_services_share_is_not_the_services_own(api: Api) -> None:
    Suppression.objects.create(channel="sms", recipient="+56912345678", reason="law", actor="op")
    assert api.get("suppressions").json() == []
    problem(api.delete("suppressions", channel="sms", to="+56912345678"), 404, "not_found")


@pytest.fixture
def history(api: Api, theirs: Api) -> None:
    now = datetime.now(UTC)
    for seconds in (1, 2, 3):
        move(api.send()["id"], Status.SENDING, Status.SENT, at=now + timedelta(seconds=seconds), attempt=seconds)
    move(api.send()["id"], Status.FAILED, error_class="content_refused", error_code="x")
    api.send(channel="email", to="a@example.com", subject="x")
    theirs.send()


def test_the_summary_counts_rates_and_latencies(api: Api, history: None) -> None:
    body = api.get("reports/summary").json()
    assert body["group_by"] == "channel"
    by_name = {group["name"]: group for group in body["groups"]}
    assert set(by_name) == {"sms", "email"}
    sms = by_name["sms"]
    assert (sms["messages"], sms["sent"], sms["failed"], sms["retried"], sms["success_rate"]) == (4, 3, 1, 2, 0.75)
    assert 1500 < sms["p50_ms"] < 2500
    assert 2500 < sms["p99_ms"] < 3500
    assert (by_name["email"]["p50_ms"], by_name["email"]["success_rate"]) == (None, 0.0)


@pytest.mark.parametrize(
    ("group_by", "names"),
    [("status", {"sent", "failed", "queued"}), ("provider", {"sandbox"}), ("channel", {"sms", "email"})],
)
def test_the_summary_is_grouped_as_asked(api: Api, history: None, group_by: str, names: set[str]) -> None:
    body = api.get("reports/summary", group_by=group_by).json()
    assert {group["name"] for group in body["groups"]} == names


def test_the_summary_is_bounded_by_its_times(api: Api, history: None) -> None:
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    earlier = api.get("reports/summary", since=(now - 2 * hour).isoformat(), until=(now - hour).isoformat()).json()
    assert earlier["groups"] == []
    assert datetime.fromisoformat(earlier["until"]) == now - hour


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "recipient"}, "group_by"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2030-01-01T00:00:00"}, "until"),
        ({"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, "since"),
        ({"since": "2020-01-01T00:00:00Z"}, "since"),
        ({"until": "0001-01-01T00:00:00Z"}, "since"),
    ],
)
def test_a_summary_that_cannot_be_made_is_refused_by_name(api: Api, query: dict[str, str], field: str) -> None:
    assert list(problem(api.get("reports/summary", **query), 422, "invalid_filter")["errors"]) == [field]


def test_a_test_service_says_so(db: None) -> None:
    tester: Caller = make_caller("tester", test=True)
    assert Api(tester).get("me").json()["test"] is True
    assert Account.objects.count() == 0
