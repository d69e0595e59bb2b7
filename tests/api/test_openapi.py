"""The description of the API is true: random calls get only answers that it documents, in the shapes that it gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from chaski.vocabulary import Status
from tests.api.calls import SMS, Api, move

METHODS = ("get", "post", "delete", "put", "patch")


@cache
def schema() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return json.loads(json.dumps(found, default=str))


def operations() -> Iterator[tuple[str, str]]:
    for path, methods in schema()["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method, path


def plain(part: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: references opened, ``nullable`` spelled out."""
    if isinstance(part, list):
        return [plain(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return plain(schema()["components"]["schemas"][part["$ref"].rpartition("/")[2]])
    opened = {name: plain(value) for name, value in part.items() if name != "nullable"}
    return {"anyOf": [opened, {"type": "null"}]} if part.get("nullable") else opened


def check(answer: Any, method: str, path: str) -> None:
    """The answer is one that the description gives for this call."""
    documented = schema()["paths"][path][method]["responses"]
    status = str(answer.status_code)
    assert status in documented, f"{method} {path} answered {status}: {answer.content[:300]!r}"
    assert status != "500", answer.content
    content = documented[status].get("content", {})
    if not content:
        assert answer.content == b""
        return
    [(media_type, described)] = content.items()
    assert answer["Content-Type"].partition(";")[0] == media_type
    jsonschema.validate(answer.json(), plain(described["schema"]), format_checker=jsonschema.FormatChecker())


def test_the_description_is_valid_and_complete() -> None:
    validate_schema(schema())  # type: ignore[no-untyped-call]
    assert {(method.upper(), path.removeprefix("/api/v1")) for method, path in operations()} == {
        ("POST", "/messages"),
        ("GET", "/messages"),
        ("GET", "/messages/{message_id}"),
        ("POST", "/messages/{message_id}/cancel"),
        ("POST", "/messages/{message_id}/redeliver"),
        ("POST", "/batches"),
        ("GET", "/batches/{batch_id}"),
        ("POST", "/files"),
        ("POST", "/previews"),
        ("GET", "/suppressions"),
        ("POST", "/suppressions"),
        ("DELETE", "/suppressions"),
        ("GET", "/me"),
        ("GET", "/reports/summary"),
    }


def test_every_call_is_described_with_its_problems_and_its_key() -> None:
    for method, path in operations():
        described = schema()["paths"][path][method]
        assert described["description"]
        assert described["security"] == [{"apiKey": []}]
        assert {"401", "503"} <= set(described["responses"])
        for status, answer in described["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("path", ["/api/docs", "/api/redoc"])
def test_the_pages_need_nothing_from_elsewhere(path: str) -> None:
    page = Client().get(path)
    assert page.status_code == 200
    text = page.content.decode()
    assert "/api/schema" in text
    assert "cdn." not in text


TEXT = st.text(st.characters(codec=None), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
NEAR = {
    "id": st.builds(lambda: str(uuid7())) | st.uuids().map(str),
    "channel": st.sampled_from(["sms", "email", "telegram", "webhook", "x"]),
    "to": st.sampled_from(["+56912345678", "a@example.com", "@chaski", "https://example.com/x", "C1"]),
    "text": TEXT,
    "subject": TEXT,
    "html": TEXT,
    "template": st.just("hi"),
    "context": st.dictionaries(TEXT, JSON, max_size=3),
    "language": TEXT,
    "account": st.sampled_from(["main", "post", "none"]),
    "send_at": st.datetimes(timezones=st.timezones()).map(str) | st.just("2030-01-01T00:00:00Z"),
    "expires_at": st.datetimes(timezones=st.timezones()).map(str),
    "priority": st.sampled_from(["urgent", "normal", "bulk"]),
    "ordering_key": TEXT,
    "reference": TEXT,
    "tags": st.lists(TEXT, max_size=3),
    "metadata": st.dictionaries(TEXT, JSON, max_size=3),
    "options": st.dictionaries(TEXT, JSON, max_size=3),
    "reason": TEXT,
}
MESSAGE = st.builds(
    lambda near, wild: {**SMS, **near, **wild},
    st.fixed_dictionaries({}, optional=NEAR),
    st.dictionaries(st.sampled_from(sorted(NEAR)) | TEXT, JSON, max_size=2),
)
BODIES = {
    "/api/v1/batches": st.builds(lambda rows: {"messages": rows}, st.lists(MESSAGE | JSON, max_size=4)) | JSON,
    "/api/v1/suppressions": st.fixed_dictionaries(
        {}, optional={n: NEAR[n] | JSON for n in ("channel", "to", "reason")}
    ),
}
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["failed", "sending", "sent,queued"]) | TEXT,
        "channel": NEAR["channel"] | TEXT,
        "to": NEAR["to"] | TEXT,
        "reference": TEXT,
        "tag": TEXT,
        "batch": st.uuids().map(str) | TEXT,
        "cursor": st.uuids().map(str) | TEXT,
        "created_after": NEAR["expires_at"] | TEXT,
        "created_before": NEAR["expires_at"] | TEXT,
        "since": NEAR["expires_at"] | TEXT,
        "until": NEAR["expires_at"] | TEXT,
        "group_by": st.sampled_from(["channel", "status", "hour", "lane"]) | TEXT,
        "limit": st.integers(-1, 300).map(str) | TEXT,
    },
)


@pytest.fixture
def lived(api: Api) -> Api:
    """A service with messages in several states, so that random reads find something."""
    for path in ((Status.SENDING, Status.SENT), (Status.FAILED,), (Status.CANCELED,)):
        move(api.send(reference="r", tags=["t"])["id"], *path)
    api.send(ordering_key="o")
    return api


@pytest.mark.parametrize(("method", "path"), list(operations()), ids=lambda part: str(part))
def test_random_calls_get_only_documented_answers(lived: Api, method: str, path: str) -> None:
    known = [message["id"] for message in lived.get("messages").json()["results"]]
    batch = lived.post("batches", {"messages": [SMS]}).json()["id"]
    ids = st.sampled_from([*known, batch, str(uuid4()), str(uuid7())])
    asked = {each["name"] for each in schema()["paths"][path][method].get("parameters", ())}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(data=st.data())
    def calls(data: st.DataObject) -> None:
        url = path.replace("{message_id}", data.draw(ids)).replace("{batch_id}", data.draw(ids))
        query = {name: value for name, value in data.draw(QUERY).items() if name in asked}
        options: dict[str, Any] = {}
        if "requestBody" in schema()["paths"][path][method]:
            body = data.draw(BODIES.get(path, MESSAGE | JSON))
            raw = data.draw(st.just(json.dumps(body).encode()) | st.binary(max_size=50))
            key = data.draw(st.sampled_from(["", "k"]))
            options = {"data": raw, "content_type": "application/json", "headers": {**lived.caller.headers}}
            if key:
                options["headers"]["Idempotency-Key"] = key
        options.setdefault("headers", lived.caller.headers)
        answer = getattr(lived.client, method)(url, query_params=query, **options)
        check(answer, method, path)

    calls()


@pytest.mark.parametrize(("method", "path"), list(operations()), ids=lambda part: str(part))
def test_calls_without_a_key_get_a_documented_answer(db: None, method: str, path: str) -> None:
    url = path.replace("{message_id}", str(uuid4())).replace("{batch_id}", str(uuid4()))
    check(getattr(Client(), method)(url), method, path)


def test_a_full_message_has_the_described_shape(lived: Api) -> None:
    path = "/api/v1/messages/{message_id}"
    for message in lived.get("messages").json()["results"]:
        check(lived.get(f"messages/{message['id']}"), "get", path)
