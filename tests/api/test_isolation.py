"""What belongs to another service is not there. Every URL of the API has a case here, or this file fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from chaski.vocabulary import Status
from deliveries.models import Account, Endpoint, File, Message, Pause, Route, Suppression, Template
from tests.api.calls import LINES, SMS, Api, move, nothing_stored, problem, rows
from tests.factories import make_account

SECRET = "only-theirs"


@dataclass(frozen=True, slots=True)
class Theirs:
    """What the other service has."""

    message: str
    failed: str
    batch: str


@pytest.fixture
def owned(theirs: Api) -> Theirs:
    service = theirs.caller.service
    make_account("sms", name=SECRET, service=service)
    Template.objects.create(service=service, name=SECRET, channel="sms", language="", version=1, text=SECRET)
    Suppression.objects.create(service=service, channel="sms", recipient="+56900000001", reason=SECRET, actor="x")
    assert theirs.post("files?name=x.txt", raw=SECRET.encode(), content_type="text/plain").status_code == 201
    message = theirs.send(reference=SECRET, tags=[SECRET], metadata={"x": SECRET}, to="+56911111111")["id"]
    failed = theirs.send(text=SECRET)["id"]
    move(failed, Status.FAILED)
    batch = theirs.post("batches", {"messages": [{**SMS, "text": SECRET, "key": SECRET}]}).json()["id"]
    return Theirs(message, failed, batch)


def absent(answer: Any) -> None:
    """Exactly what is said of something that nobody has."""
    problem(answer, 404, "not_found")


def messages(api: Api, owned: Theirs) -> None:
    for query in (
        {},
        {"status": "failed"},
        {"channel": "sms"},
        {"to": "+56911111111"},
        {"reference": SECRET},
        {"reference": SECRET, "tag": SECRET},
        {"batch": owned.batch},
        {"created_after": "2020-01-01T00:00:00Z"},
        {"cursor": "ffffffff-ffff-7fff-bfff-ffffffffffff"},
        {"cursor": owned.message, "limit": "1"},
    ):
        assert api.get("messages", **query).json() == {"results": [], "next": None}, query
    for fields in ({"account": SECRET}, {"template": SECRET, "text": None}):
        with nothing_stored():
            problem(api.post("messages", {**SMS, **fields}), 422, "invalid_message")
    own = api.post("messages", {**SMS, "ordering_key": "shared"}, key=SECRET)
    assert own.status_code == 202  # a key is its service's own
    assert own.json()["waiting_for"] is None


def message(api: Api, owned: Theirs) -> None:
    absent(api.get(f"messages/{owned.message}"))


def cancel(api: Api, owned: Theirs) -> None:
    absent(api.post(f"messages/{owned.message}/cancel"))
    assert Message.objects.get(pk=owned.message).status == Status.QUEUED


def redeliver(api: Api, owned: Theirs) -> None:
    absent(api.post(f"messages/{owned.failed}/redeliver"))
    assert Message.objects.get(pk=owned.failed).status == Status.FAILED


def batches(api: Api, owned: Theirs) -> None:
    with nothing_stored():
        absent(api.post("batches", {"id": owned.batch, "messages": [SMS]}))
        absent(api.post(f"batches?id={owned.batch}", raw=b"{}", content_type=LINES))
    told = api.post("batches", {"messages": [{**SMS, "key": SECRET}, {**SMS, "account": SECRET}]}).json()
    assert (told["accepted"], told["duplicates"], told["rejected_count"]) == (1, 0, 1)


def batch(api: Api, owned: Theirs) -> None:
    absent(api.get(f"batches/{owned.batch}"))


def previews(api: Api, owned: Theirs) -> None:
    for fields in ({"account": SECRET}, {"template": SECRET, "text": None}):
        problem(api.post("previews", {**SMS, **fields}), 422, "invalid_message")


def suppressions(api: Api, owned: Theirs) -> None:
    assert api.get("suppressions").json() == []
    absent(api.delete("suppressions", channel="sms", to="+56900000001"))
    assert Suppression.objects.filter(reason=SECRET).exists()
    assert api.post("suppressions", {"channel": "sms", "to": "+56900000001"}).status_code == 201
    assert Suppression.objects.count() == 2


def files(api: Api, owned: Theirs) -> None:
    """Not even the same bytes under the same name are the same file, and no message can carry another's."""
    own = api.post("files?name=x.txt", raw=SECRET.encode(), content_type="text/plain")
    theirs = File.objects.exclude(pk=own.json()["id"]).get()
    assert own.status_code == 201
    with nothing_stored():
        found = problem(api.post("messages", {**SMS, "attachments": [str(theirs.pk)]}), 422, "invalid_message")
    assert "no such file" in found["errors"]["attachments"][0]


def file(api: Api, owned: Theirs) -> None:
    """A file's URL is signed: its id alone shows nothing."""
    for token in (str(File.objects.get().pk), File.objects.get().pk.hex, "x"):
        answer = api.client.get(f"/files/{token}/x.txt")
        problem(answer, 404, "not_found")
        assert SECRET.encode() not in answer.content


def unsubscribe(api: Api, owned: Theirs) -> None:
    """A message's id alone unsubscribes nobody."""
    for token in (owned.message, owned.message.replace("-", "")):
        with nothing_stored():
            assert api.client.post(f"/unsubscribe/{token}").status_code == 404


def me(api: Api, owned: Theirs) -> None:
    assert api.get("me").json()["usage"] == {"accepted_last_hour": 0, "unfinished": 0}


def summary(api: Api, owned: Theirs) -> None:
    assert api.get("reports/summary").json()["groups"] == []


def public(path: str) -> Callable[[Api, Theirs], None]:
    """A page without a key: it holds nothing of anybody."""

    def case(api: Api, owned: Theirs) -> None:
        answer = api.client.get(path)
        assert answer.status_code == 200
        assert SECRET.encode() not in b"".join(answer)

    return case


def receipts(api: Api, owned: Theirs) -> None:
    """An account's address is no secret of its service's: nothing happens without the provider's signature."""
    account = Account.objects.get(name=SECRET)
    with nothing_stored():
        answer = api.client.post(f"/receipts/{account.public_id}", b"{}", content_type="application/json")
    problem(answer, 401, "forged")
    assert SECRET.encode() not in answer.content


CASES: dict[str, Callable[[Api, Theirs], None]] = {
    "messages": messages,
    "message": message,
    "cancel": cancel,
    "redeliver": redeliver,
    "batches": batches,
    "batch": batch,
    "previews": previews,
    "suppressions": suppressions,
    "files": files,
    "file": file,
    "unsubscribe": unsubscribe,
    "me": me,
    "summary": summary,
    "receipts": receipts,
    "schema": public("/api/schema"),
    "docs": public("/api/docs"),
    "redoc": public("/api/redoc"),
    "live": public("/health/live"),
    "ready": public("/health/ready"),
    "metrics": public("/metrics"),
}


def routes(patterns: list[Any], under: str = "") -> Iterator[tuple[str, str]]:
    """(URL, name) of everything but the admin, which has users of its own."""
    for pattern in patterns:
        path = under + str(pattern.pattern)
        if isinstance(pattern, URLResolver) and not path.startswith("admin/"):
            yield from routes(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield path, str(pattern.name)


def test_every_url_has_a_case() -> None:
    found = dict(routes(get_resolver().url_patterns))
    assert set(found.values()) == set(CASES), "write a case of isolation for each URL"
    assert len(found) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_another_service_is_seen_or_touched(api: Api, owned: Theirs, name: str) -> None:
    before = {row["id"]: row for row in Message.objects.filter(metadata__x=SECRET).values()}
    CASES[name](api, owned)
    assert {row["id"]: row for row in Message.objects.filter(metadata__x=SECRET).values()} == before


CALLS = {name: path for path, name in routes(get_resolver().url_patterns) if path.startswith("api/v1/")}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_needs_a_key(api: Api, owned: Theirs, name: str) -> None:
    path = CALLS[name].replace("<uuid:message_id>", owned.message).replace("<uuid:batch_id>", owned.batch)
    with nothing_stored():
        for method in ("get", "post", "put", "patch", "delete", "options", "head"):
            answer = getattr(api.client, method)(f"/{path}")
            assert answer.status_code == 401, (method, path)


def test_what_is_absent_and_what_is_anothers_look_the_same(api: Api, owned: Theirs) -> None:
    nobodys = owned.message[:-4] + "0000"
    for path in ("messages/{}", "messages/{}/cancel", "messages/{}/redeliver"):
        call = api.get if path == "messages/{}" else api.post
        seen = [call(path.format(message_id)).json() for message_id in (owned.message, nobodys)]
        for answer in seen:
            answer.pop("request_id")
        assert seen[0] == seen[1]


def test_the_tables_of_this_file_know_every_table_that_a_service_owns(owned: Theirs) -> None:
    """A new table with rows of services needs a look at this file."""
    assert {model._meta.db_table for model in (Endpoint, Pause, Route)} < set(rows())
    assert set(rows()) == {
        "acceptance",
        "account",
        "api_key",
        "attempt",
        "audit",
        "batch",
        "breaker",
        "breaker_event",
        "contact",
        "endpoint",
        "event",
        "file",
        "heartbeat",
        "idempotency",
        "inquiry",
        "kept_media",
        "lineage",
        "message",
        "parked",
        "pause",
        "pending",
        "periodic_slot",
        "receipt",
        "reply",
        "reroute",
        "route",
        "service",
        "suppression",
        "template",
        "told",
        "untold",
        "unmapped_code",
        "watch",
    }
