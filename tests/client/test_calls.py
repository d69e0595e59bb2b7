"""What goes over the wire and what comes back: sending, reading, listing, waiting, errors."""

from __future__ import annotations

import pickle
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

import chaski
from chaski.vocabulary import Status

SOON = datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(hours=-3)))


def test_a_message_goes_out_with_id_key_and_bearer(service, client):
    message = client.send("sms", "+56912345678", text="Tu pedido va en camino ✓", reference=uuid.UUID(int=7))
    (asked,) = service.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/messages")
    assert asked.headers["authorization"] == "Bearer ck_test_abc"
    assert uuid.UUID(asked.json["id"]).version == 7
    assert message.id == asked.json["id"]
    assert message.key == asked.key == asked.json["id"]
    assert set(asked.json) == {"id", "channel", "to", "text", "reference"}
    assert asked.json["text"] == "Tu pedido va en camino ✓"


def test_every_field_of_the_contract_can_be_sent(service, client):
    fields = {
        "text": "t", "subject": "s", "html": "<p>", "template": "welcome", "context": {"name": "Ana"},
        "language": "es", "attachments": ["0192"], "account": "main", "priority": "urgent",
        "ordering_key": "o", "reference": "r",
        "tags": ["a", "b"], "metadata": {"m": 1}, "options": {"o": True},
    }  # fmt: skip
    client.send("email", "ana@example.com", key="k", send_at=SOON, expires_at="2030-02-01T00:00:00Z", **fields)
    sent = service.asked[0].json
    assert {name: sent[name] for name in fields} == fields
    assert (sent["send_at"], sent["expires_at"]) == ("2030-01-31T09:00:00-03:00", "2030-02-01T00:00:00Z")
    assert service.asked[0].key == "k"


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({"send_at": datetime(2030, 1, 1)}, "send_at", "time zone"),
        ({"expires_at": datetime(2030, 1, 1).date()}, "expires_at", "time zone"),
        ({"send_at": 17}, "send_at", "not int"),
        ({"context": {"total": Decimal("1.5")}}, "context", "Decimal has no form in JSON"),
        ({"metadata": {"rate": float("nan")}}, "metadata", "cannot be written as JSON"),
        ({"subject": "\ud800"}, "subject", "cannot be written as JSON"),
        ({"key": "pedido ñ"}, "key", "ASCII"),
        ({"key": ""}, "key", "1 to 255"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_the_network(service, client, fields, name, reason):
    with pytest.raises(chaski.InvalidMessage, match=reason) as caught:
        client.send("sms", "+56912345678", text="hola", **fields)
    assert list(caught.value.errors) == [name]
    assert service.asked == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "malformed", chaski.InvalidMessage),
        (401, "not_authenticated", chaski.AuthenticationError),
        (403, "permission_denied", chaski.PermissionDenied),
        (404, "not_found", chaski.NotFound),
        (409, "not_cancelable", chaski.Conflict),
        (413, "too_large", chaski.InvalidMessage),
        (422, "idempotency_conflict", chaski.IdempotencyConflict),
        (500, "internal", chaski.Unavailable),
        (418, "teapot", chaski.ChaskiError),
    ],
)
def test_each_refusal_is_its_own_error_with_code_and_request_id(service, client, refuses, status, code, error):
    service.replies = [refuses(status, code)]
    with pytest.raises(error, match=f"text of {code}") as caught:
        client.get("1")
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.request_id) == (code, "req-7")
    assert caught.value.retryable is (status == 500)


def test_an_invalid_message_says_which_field_and_why(service, client, refuses):
    service.replies = [refuses(422, "invalid", errors={"to": ["is not a phone number"]})]
    with pytest.raises(chaski.InvalidMessage, match="text of invalid: to: is not a phone number") as caught:
        client.send("sms", "12", text="hola")
    assert caught.value.errors == {"to": ["is not a phone number"]}


def test_an_error_page_of_something_in_between_is_told_as_such(service, client, says):
    service.replies = [
        says(404, b"<html>nginx</html>"),
        says(200, b"<html>hello</html>"),
        says(200, {"no": "message"}),
    ]
    with pytest.raises(chaski.NotFound, match="CHASKI_URL may point elsewhere"):
        client.get("1")
    with pytest.raises(chaski.Unavailable, match="not a JSON object"):
        client.get("1")
    with pytest.raises(chaski.Unavailable, match="no message"):
        client.get("1")


def test_a_redirect_is_not_followed_since_the_key_would_go_along(service, client, says):
    service.replies = [says(308, b"", {"Location": "https://elsewhere.example/"})]
    with pytest.raises(chaski.ConfigurationError, match=r"to https://elsewhere\.example/"):
        client.send("sms", "+56912345678", text="hola")
    assert len(service.asked) == 1


def test_a_message_is_read_with_times_words_and_without_what_is_not_known(service, client, says):
    wire = {
        "id": "1", "status": "failed", "final": True, "channel": "sms", "text": None, "tags": ["a"],
        "created_at": "2026-11-24T04:45:10.123456Z", "sent_at": "2026-11-24T04:45:10.5+00:00",
        "due_at": None, "updated_at": "rubbish", "attempts": [{"n": 1}], "unheard_of": 1,
        "error": {"code": "30003", "class": "recipient_refused", "detail": "off"},
    }  # fmt: skip
    service.replies = [says(200, wire)]
    message = client.get(uuid.UUID(int=1))
    assert service.asked[0].path == "/api/v1/messages/00000000-0000-0000-0000-000000000001"
    assert message.status is Status.FAILED
    assert message.created_at == datetime(2026, 11, 24, 4, 45, 10, 123456, tzinfo=timezone.utc)
    assert message.sent_at is not None
    assert message.sent_at.microsecond == 500_000
    assert (message.due_at, message.updated_at, message.text, message.tags) == (None, None, "", ("a",))
    assert message.error == chaski.MessageError("30003", "recipient_refused", "off")
    assert message.attempts == ({"n": 1},)


def test_a_status_of_a_newer_service_stays_a_word(service, client, says):
    service.replies = [says(200, {"id": "1", "status": "teleported"})]
    assert client.get("1").status == "teleported"


def test_listing_follows_the_cursor_only_as_far_as_it_is_read(service, client, says):
    service.replies = [
        says(200, {"results": [{"id": "3", "status": "sent"}, {"id": "2", "status": "sent"}], "next": "c+1"}),
        says(200, {"results": [{"id": "1", "status": "sent"}], "next": None}),
    ]
    found = client.list(status=Status.SENT, tag="a", created_after=SOON, channel=None)
    assert service.asked == []
    assert next(found).id == "3"
    assert len(service.asked) == 1
    assert [message.id for message in found] == ["2", "1"]
    wanted = {"status": ["sent"], "tag": ["a"], "created_after": ["2030-01-31T09:00:00-03:00"]}
    assert [asked.query for asked in service.asked] == [wanted, {**wanted, "cursor": ["c+1"]}]


def test_cancel_and_redeliver_call_the_message(service, client):
    client.cancel("1/2")
    client.redeliver("1")
    assert [asked.path for asked in service.asked] == [
        "/api/v1/messages/1%2F2/cancel",
        "/api/v1/messages/1/redeliver",
    ]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("final", {"status": "delivered", "final": True}),
        ("sent", {"status": "sent"}),
        (Status.SENT, {"status": "read", "final": True}),
        ("delivered", {"status": "failed", "final": True}),
    ],
)
def test_waiting_ends_when_the_message_is_there_or_can_no_longer_come(service, client, says, until, last):
    states = [{"status": "queued"}, {"status": "sending"}, last]
    service.replies = [says(200, {"id": "1", **state}) for state in states]
    assert client.wait("1", until=until).status == last["status"]
    assert len(service.asked) == 3


def test_waiting_too_long_says_where_the_message_is(service, client, says):
    service.otherwise = lambda _: says(200, {"id": "1", "status": "queued", "waiting_for": "rate_limit"})
    with pytest.raises(chaski.Timeout, match=r"1 is queued, waiting for rate_limit, and not final after 1\.5 s"):
        client.wait("1", timeout=1.5)
    assert len(service.asked) < 12


def test_waiting_outlives_a_service_that_is_away_for_a_moment(service, says, refuses):
    service.replies = [
        refuses(503, "away"),
        refuses(503, "away"),
        says(200, {"id": "1", "status": "read", "final": True}),
    ]
    assert chaski.Client(service.url, "ck_a", retries=0).wait("1").status == "read"


def test_waiting_for_a_word_that_is_no_status_is_a_mistake(client):
    with pytest.raises(ValueError, match="until must be final or a status"):
        client.wait("1", until="done")


def test_waiting_for_what_does_not_exist_ends_at_once(service, client, refuses):
    service.replies = [refuses(404, "not_found")]
    with pytest.raises(chaski.NotFound):
        client.wait("1")


def test_errors_survive_pickling():
    error = chaski.InvalidMessage("no", code="c", request_id="r", errors={"to": ["bad"]})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.request_id, again.errors) == (
        "no: to: bad",
        "c",
        "r",
        {"to": ["bad"]},
    )


def test_the_key_is_not_in_the_repr(client):
    assert "ck_test" not in repr(client)
    assert "ck_test" not in repr(vars(client))
