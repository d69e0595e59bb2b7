"""What POST /messages refuses at the door, with the field and the remedy; and that nothing of it is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from deliveries.models import Template
from tests.api.calls import SMS, Api, nothing_stored, problem
from tests.factories import make_account

NOW = datetime.now(UTC)
OLD_UUID7 = f"{int((NOW - timedelta(days=365)).timestamp() * 1000):012x}"
OLD_UUID7 = f"{OLD_UUID7[:8]}-{OLD_UUID7[8:]}-7000-8000-000000000000"
LONG_AGO = "2020-01-01T00:00:00Z"


def at(**delta: float) -> str:
    return (NOW + timedelta(**delta)).isoformat()


#: (what is wrong, the fields, the field that is blamed, a piece of the remedy).
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("an unknown channel", {"channel": "pigeon"}, "channel", "one of email, sms"),
    ("no channel", {"channel": None}, "channel", "required"),
    ("an empty channel", {"channel": ""}, "channel", "one of"),
    ("a channel without an account", {"channel": "telegram", "to": "1"}, "channel", "account create telegram"),
    ("no recipient", {"to": None}, "to", "required"),
    ("a national number", {"to": "91234567"}, "to", "+56912345678"),
    ("a number with letters", {"to": "+56 9 CALL"}, "to", "+56912345678"),
    ("a bad address", {"channel": "email", "to": "ana@"}, "to", "e-mail"),
    ("an empty body", {"text": ""}, "text", "empty"),
    ("no body", {"text": None}, "text", "empty"),
    ("a long text", {"text": "x" * 100_001}, "text", "100,000"),
    ("NUL in the text", {"text": "a\0b"}, "text", "NUL"),
    ("NUL in the recipient", {"to": "+5691234\x005678"}, "to", "NUL"),
    ("half a character", {"text": "\ud800"}, "text", "surrogate"),
    ("half a character in the metadata", {"metadata": {"a": "\udfff"}}, "metadata", "surrogate"),
    ("half a character in a name", {"metadata": {"\ud800": 1}}, "metadata", "surrogate"),
    ("NUL in the metadata", {"metadata": {"a": ["x\0"]}}, "metadata", "NUL"),
    ("NUL in a tag", {"tags": ["\0"]}, "tags", "NUL"),
    ("a line break in the subject", {"subject": "a\r\nBcc: x@y"}, "subject", "single line"),
    ("deep metadata", {"metadata": json.loads('{"a":' * 30 + "1" + "}" * 30)}, "metadata", "nested"),
    ("large metadata", {"metadata": {"a": "x" * 70_000}}, "metadata", "65,536"),
    ("metadata as a list", {"metadata": []}, "metadata", "must be an object"),
    ("options as a text", {"options": "x"}, "options", "must be an object"),
    ("context without a template", {"context": {"a": 1}}, "context", "give template"),
    ("tags as an object", {"tags": {}}, "tags", "list"),
    ("tags of numbers", {"tags": [1]}, "tags", "string"),
    ("too many tags", {"tags": ["t"] * 21}, "tags", "at most 20"),
    ("an old deadline", {"expires_at": LONG_AGO}, "expires_at", "has passed"),
    ("a deadline before its time", {"send_at": at(hours=2), "expires_at": at(hours=1)}, "expires_at", "send_at"),
    ("a deadline beyond a year", {"expires_at": at(days=400)}, "expires_at", "year"),
    ("a time beyond a year", {"send_at": at(days=400)}, "send_at", "year"),
    ("a naive time", {"send_at": "2030-01-01T00:00:00"}, "send_at", "time zone"),
    ("a naive deadline", {"expires_at": "2030-01-01T00:00:00"}, "expires_at", "time zone"),
    ("a time that is none", {"send_at": "tomorrow"}, "send_at", "2030-01-31T12:00:00Z"),
    ("an empty time", {"send_at": ""}, "send_at", "2030-01-31T12:00:00Z"),
    ("a time out of range", {"send_at": "0001-01-01T00:00:00+14:00"}, "send_at", "range"),
    ("a lane that is none", {"priority": "asap"}, "priority", "urgent, normal or bulk"),
    ("a random UUID", {"id": str(uuid4())}, "id", "UUIDv7"),
    ("an old UUIDv7", {"id": OLD_UUID7}, "id", "more than a day away"),
    ("a UUIDv7 of the far future", {"id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, "id", "more than a day away"),
    ("an id that is none", {"id": "7"}, "id", "not a UUID"),
    ("an empty id", {"id": ""}, "id", "not a UUID"),
    ("another service's account", {"account": "theirs"}, "account", "no account 'theirs'"),
    ("an unknown template", {"text": None, "template": "none"}, "template", "no template 'none'"),
    ("a template and a text", {"template": "hi"}, "text", "leave one of the two out"),
    ("a missing variable", {"text": None, "template": "hi"}, "context", "lacks name"),
    ("an attachment that is none", {"attachments": ["x"]}, "attachments", "the id that /api/v1/files answered"),
    ("attachments that are no list", {"attachments": "x"}, "attachments", "/api/v1/files"),
    ("an attachment of nothing", {"attachments": [{"name": "x"}]}, "attachments", "/api/v1/files"),
    (
        "an attachment of both",
        {"attachments": [{"id": str(uuid4()), "url": "https://a.b"}]},
        "attachments",
        "public ones",
    ),
    ("too many attachments", {"attachments": [str(uuid4())] * 21}, "attachments", "at most 20"),
    ("an unknown member", {"attachments": [{"id": str(uuid4()), "x": 1}]}, "attachments", "knows no 'x'"),
    ("nobody's file", {"attachments": [str(uuid4())]}, "attachments", "no such file"),
    ("a URL without its type", {"attachments": [{"url": "https://s.example/a"}]}, "attachments", "content_type"),
    (
        "a URL of our own network",
        {"attachments": [{"url": "http://169.254.169.254/", "content_type": "image/png"}]},
        "attachments",
        "private or reserved",
    ),
    ("a name with a line", {"attachments": [{"id": str(uuid4()), "name": "a\nb"}]}, "attachments", "line breaks"),
    (
        "a type that is none",
        {"attachments": [{"id": str(uuid4()), "content_type": "x"}]},
        "attachments",
        "content_type",
    ),
    ("an odd content id", {"attachments": [{"id": str(uuid4()), "content_id": "<x>"}]}, "attachments", "content_id"),
    ("a field that is none", {"body": "x"}, "body", "not a field"),
    ("a status", {"status": "sent"}, "status", "not a field"),
    ("a service", {"service": 1}, "service", "not a field"),
    ("a service id", {"service_id": 1}, "service_id", "not a field"),
    ("an attempt count", {"attempt_count": 9}, "attempt_count", "not a field"),
    ("a batch", {"batch_id": str(uuid4())}, "batch_id", "not a field"),
    ("a name of half a character", {"\ud800": 1}, "\\ud800", "not a field"),
]


@pytest.fixture
def with_templates(api: Api, theirs: Api) -> Api:
    Template.objects.create(
        service=api.caller.service, name="hi", channel="sms", language="", version=1, text="Hola {{ name }}"
    )
    make_account("sms", name="theirs", service=theirs.caller.service)
    return api


@pytest.mark.parametrize(("fields", "field", "remedy"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_it_is_refused_by_field_and_nothing_is_stored(
    with_templates: Api, fields: dict[str, Any], field: str, remedy: str
) -> None:
    with nothing_stored():
        answer = with_templates.post("messages", {**SMS, **fields}, key="k")
    found = problem(answer, 422, "invalid_message")
    assert list(found["errors"]) == [field]
    assert remedy in found["errors"][field][0]
    assert field in found["detail"]


TEXTS = "id channel to text subject html template language account send_at expires_at priority ordering_key reference"
NO_TEXT = (1, 1.5, True, ["x"], {"a": 1})
NO_OBJECT = (1, True, "x", [{"a": 1}], [[]])


@pytest.mark.parametrize(
    ("name", "values"),
    [(name, NO_TEXT) for name in TEXTS.split()]
    + [(name, NO_OBJECT) for name in ("tags", "metadata", "options", "context")],
)
def test_a_field_of_the_wrong_type_is_refused(api: Api, name: str, values: tuple[object, ...]) -> None:
    with nothing_stored():
        for value in values:
            answer = api.post("messages", {**SMS, name: value})
            assert name in problem(answer, 422, "invalid_message")["errors"], value


def test_all_problems_are_told_at_once(api: Api) -> None:
    fields = {"to": "1", "account": "none", "expires_at": LONG_AGO, "context": {"a": 1}}
    answer = api.post("messages", {**SMS, **fields})
    assert set(problem(answer, 422, "invalid_message")["errors"]) == set(fields)


#: (what is wrong, the body, the status, the code).
NOT_JSON: list[tuple[str, bytes, int, str]] = [
    ("nothing", b" ", 400, "malformed"),
    ("no JSON", b"{", 400, "malformed"),
    ("NaN", b'{"metadata": {"a": NaN}}', 400, "malformed"),
    ("Infinity", b'{"metadata": {"a": -Infinity}}', 400, "malformed"),
    (
        "a number beyond all",
        b'{"channel":"sms","to":"+56912345678","text":"x","metadata":{"a":1e999}}',
        422,
        "invalid_message",
    ),
    ("double members", b'{"channel": "sms", "to": "+1", "to": "+2"}', 400, "malformed"),
    ("double members inside", b'{"metadata": {"a": 1, "a": 2}}', 400, "malformed"),
    ("depth", b"[" * 100_000 + b"]" * 100_000, 400, "malformed"),
    ("depth in a field", b'{"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, 400, "malformed"),
    ("not UTF-8", '{"text": "ñ"}'.encode("latin-1"), 400, "malformed"),
    ("UTF-16", '{"text": "x"}'.encode("utf-16"), 400, "malformed"),
    ("a list", b"[]", 422, "invalid_message"),
    ("a text", b'"x"', 422, "invalid_message"),
    ("null", b"null", 422, "invalid_message"),
    ("a long number", b'{"metadata": {"a": ' + b"9" * 10_000 + b"}}", 400, "malformed"),
    ("a megabyte and one", b'{"text": "' + b"x" * (1_000_000 - 11) + b'"}', 413, "too_large"),
]


@pytest.mark.parametrize(("body", "status", "code"), [row[1:] for row in NOT_JSON], ids=[row[0] for row in NOT_JSON])
def test_a_body_that_is_no_message_is_refused_whole(api: Api, body: bytes, status: int, code: str) -> None:
    with nothing_stored():
        problem(api.post("messages", raw=body), status, code)


def test_a_megabyte_is_not_too_large(api: Api) -> None:
    body = b'{"text": "' + b"x" * (1_000_000 - 12) + b'"}'
    assert len(body) == 1_000_000
    assert "text" in problem(api.post("messages", raw=body), 422, "invalid_message")["errors"]


def test_many_wrong_names_are_not_all_echoed(api: Api) -> None:
    body = json.dumps({f"n{number}": 0 for number in range(70_000)}).encode()
    with nothing_stored():
        answer = api.post("messages", raw=body)
    problem(answer, 422, "invalid_message")
    assert len(answer.content) < 10_000


def test_a_million_members_with_one_given_twice_are_refused_in_time(api: Api) -> None:
    names = ",".join(f'"{number}":0' for number in range(800_000))
    begun = monotonic()
    with nothing_stored():
        answer = api.post("batches", raw=f'{{"messages":[{{{names},"799999":0}}]}}'.encode())
    assert "799999" in problem(answer, 400, "malformed")["detail"]
    assert monotonic() - begun < 5


NOT_CALLED_JSON = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "*/*",
)


@pytest.mark.parametrize("path", ["messages", "batches", "previews", "suppressions"])
def test_a_body_that_is_not_called_json_is_refused(api: Api, path: str) -> None:
    with nothing_stored():
        for content_type in NOT_CALLED_JSON:
            answer = api.post(path, raw=b"{}", content_type=content_type)
            assert "application/json" in problem(answer, 415, "unsupported_media_type")["detail"]


def test_parameters_of_the_content_type_do_not_matter(api: Api) -> None:
    assert api.post("messages", SMS, content_type="application/json; charset=utf-8").status_code == 202


@pytest.mark.parametrize("key", ["x" * 256, "a\x01b"])
def test_a_key_that_cannot_be_kept_is_refused_by_name(api: Api, key: str) -> None:
    with nothing_stored():
        assert "Idempotency-Key" in problem(api.post("messages", SMS, key=key), 422, "invalid_message")["errors"]
