"""POST /messages: what is taken, what it looks like, and what a repeat gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from uuid_utils.compat import uuid7

from chaski.vocabulary import Status
from deliveries import acts, reading
from deliveries.models import Acceptance, Idempotency, Message, Pending, Service, Template
from deliveries.models.control import PauseScope
from tests.api.calls import SMS, Api, lease, move, nothing_stored, problem
from tests.factories import make_account, make_caller

IN = [
    "id",
    "channel",
    "to",
    "text",
    "subject",
    "html",
    "template",
    "context",
    "language",
    "attachments",
    "account",
    "send_at",
    "expires_at",
    "priority",
    "ordering_key",
    "reference",
    "tags",
    "metadata",
    "options",
]
OUT = [
    "status",
    "waiting_for",
    "waiting_until",
    "waiting_behind",
    "provider",
    "provider_message_id",
    "error",
    "attempt_count",
    "batch_id",
    "created_at",
    "updated_at",
    "due_at",
    "sent_at",
    "delivered_at",
    "read_at",
    "finished_at",
    "final",
    "in_doubt_count",
    "url",
]


def test_an_accepted_message_is_a_row_a_place_in_the_queue_and_a_record(api: Api) -> None:
    body = api.send()
    assert (body["status"], body["recipient"], body["to"]) == ("queued", "+56912345678", "+56 9 1234 5678")
    assert Message.objects.get().pk == Pending.objects.get().pk == Acceptance.objects.get().pk
    assert str(Message.objects.get().pk) == body["id"]


def test_the_answer_has_every_field_of_the_contract(api: Api) -> None:
    body = api.send()
    assert set(IN) | set(OUT) <= set(body)
    assert body["url"].endswith(f"/admin/deliveries/message/{body['id']}/change/")
    assert (body["attempt_count"], body["in_doubt_count"], body["final"], body["error"]) == (0, 0, False, None)


def test_what_was_given_is_what_is_shown(api: Api) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    given = {
        "id": str(uuid7()),
        "channel": "email",
        "to": "Ana@Example.COM",
        "subject": "Hola",
        "text": "línea\nlínea",
        "html": "<p>hola</p>",
        "account": "post",
        "language": "es",
        "send_at": later.isoformat(),
        "expires_at": (later + timedelta(hours=1)).isoformat(),
        "priority": "urgent",
        "ordering_key": "ana",
        "reference": "order:7",
        "tags": ["a", "b"],
        "metadata": {"n": 1, "deep": {"x": [None, True, 1.5]}},
        "options": {"anything": "goes to the sandbox"},
    }
    answer = api.post("messages", given)
    assert answer.status_code == 202, answer.content
    body = answer.json()
    times = {name: datetime.fromisoformat(body.pop(name)) for name in ("send_at", "expires_at")}
    assert {name: body[name] for name in given if name in body} == {
        name: value for name, value in given.items() if name not in times
    }
    assert times["send_at"] == later
    assert body["recipient"] == "Ana@example.com"
    assert (body["waiting_for"], datetime.fromisoformat(body["waiting_until"])) == ("schedule", later)
    assert api.get(f"messages/{body['id']}").json()["metadata"] == given["metadata"]


@pytest.mark.parametrize("content", ["[]", '"text"', "7", "null"])
def test_a_row_that_somebody_wrote_by_hand_is_shown_without_its_parts(api: Api, content: str) -> None:
    message_id = api.send()["id"]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE message SET content = %s::jsonb WHERE id = %s", [content, message_id])
    answer = api.get(f"messages/{message_id}")
    assert (answer.status_code, answer.json()["text"]) == (200, "")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"send_at": "2099-01-31T12:00:00.123456Z"},
        {
            "priority": "urgent",
            "reference": "order 7",
            "tags": ["a", "b"],
            "metadata": {"n": 1.5, "deep": [{"x": None}]},
        },
        {"ordering_key": "order 7", "options": {"anything": "goes"}},
    ],
    ids=["plain", "later", "everything", "behind another"],
)
@pytest.mark.parametrize("paused", [False, True])
def test_the_answer_to_a_new_message_is_what_a_look_at_it_shows(api: Api, given: dict[str, Any], paused: bool) -> None:
    if "send_at" in given:
        given = {"send_at": (datetime.now(UTC) + timedelta(days=3)).isoformat()}
    api.send(ordering_key="order 7")
    if paused:
        acts.pause(PauseScope.SERVICE, str(api.caller.service.pk), actor="somebody")
    answer = api.send(**given)
    shown = api.get(f"messages/{answer['id']}").json()
    assert answer == {name: value for name, value in shown.items() if name not in ("attempts", "receipts", "events")}


def test_a_repeat_gives_the_first_message_with_200(api: Api) -> None:
    first = api.post("messages", SMS, key="shipped:7")
    again = api.post("messages", SMS, key="shipped:7")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert Message.objects.count() == Pending.objects.count() == Idempotency.objects.count() == 1


def test_a_repeat_shows_the_message_as_it_is_by_then(api: Api) -> None:
    sent = api.post("messages", SMS, key="k").json()
    lease(sent["id"])
    again = api.post("messages", SMS, key="k").json()
    assert (again["status"], again["attempt_count"], again["waiting_for"]) == ("sending", 1, None)


def test_another_body_under_the_same_key_is_a_conflict_that_names_the_first(api: Api) -> None:
    first = api.post("messages", SMS, key="k").json()
    with nothing_stored():
        answer = api.post("messages", {**SMS, "text": "other"}, key="k")
    assert first["id"] in problem(answer, 422, "idempotency_conflict")["detail"]


def test_the_order_of_members_and_explicit_nulls_make_no_other_body(api: Api) -> None:
    api.post("messages", SMS, key="k")
    turned = {"html": None, **dict(reversed(SMS.items()))}
    assert api.post("messages", turned, key="k").status_code == 200


def test_the_same_key_of_two_services_makes_two_messages(api: Api, theirs: Api) -> None:
    one, two = api.post("messages", SMS, key="k"), theirs.post("messages", SMS, key="k")
    assert (one.status_code, two.status_code) == (202, 202)
    assert one.json()["id"] != two.json()["id"]


def test_an_id_alone_is_a_promise_not_to_be_doubled(api: Api) -> None:
    body = {**SMS, "id": str(uuid7())}
    assert [api.post("messages", body).status_code for _ in range(2)] == [202, 200]
    problem(api.post("messages", {**body, "text": "other"}), 422, "idempotency_conflict")
    assert Message.objects.count() == 1


def test_an_id_under_another_key_is_taken(api: Api) -> None:
    body = {**SMS, "id": str(uuid7())}
    api.post("messages", body, key="one")
    with nothing_stored():
        assert "id" in problem(api.post("messages", body, key="two"), 409, "id_taken")["errors"]


def test_another_services_id_is_taken_and_shows_nothing_of_it(api: Api, theirs: Api) -> None:
    body = {**SMS, "id": str(uuid7())}
    api.post("messages", {**body, "reference": "private"})
    with nothing_stored():
        answer = theirs.post("messages", body)
    problem(answer, 409, "id_taken")
    assert b"private" not in answer.content
    assert api.get(f"messages/{body['id']}").json()["reference"] == "private"


def test_a_time_that_has_passed_means_now(api: Api) -> None:
    body = api.send(send_at="2020-01-01T00:00:00Z")
    assert (body["send_at"], body["waiting_for"]) == (None, None)


def test_messages_of_one_ordering_key_wait_for_each_other(api: Api) -> None:
    bodies = [api.send(ordering_key="ana") for _ in range(3)]
    assert [body["waiting_for"] for body in bodies] == [None, "predecessor", "predecessor"]
    again = [api.get(f"messages/{body['id']}").json() for body in bodies]
    assert [body["waiting_behind"] for body in again] == [None, bodies[0]["id"], bodies[0]["id"]]


def test_what_is_accepted_is_told_although_the_database_goes_away_then(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise OperationalError("gone")

    api.send(ordering_key="ana")
    monkeypatch.setattr(reading, "aheads", away)
    body = api.send(ordering_key="ana")
    assert (body["waiting_for"], body["waiting_behind"]) == ("predecessor", None)


def test_a_message_behind_a_blocked_one_says_until_when(api: Api) -> None:
    head, second = (api.send(ordering_key="ana") for _ in range(2))
    Service.objects.update(order_wait_seconds=300)
    Pending.objects.filter(pk=head["id"]).update(blocking_at=datetime.fromisoformat("2999-01-01T00:00:00Z"))
    until = datetime.fromisoformat(api.get(f"messages/{second['id']}").json()["waiting_until"])
    assert until == datetime.fromisoformat("2999-01-01T00:05:00Z")
    listed = {body["id"]: body["waiting_until"] for body in api.get("messages").json()["results"]}
    assert (listed[head["id"]], datetime.fromisoformat(listed[second["id"]])) == (None, until)


@pytest.mark.parametrize("path", ["sent", "delivered", "in_doubt", "failed"])
def test_a_status_is_shown_with_what_belongs_to_it(api: Api, path: str) -> None:
    sent = api.send()
    steps = {
        "sent": (Status.SENDING, Status.SENT),
        "delivered": (Status.SENDING, Status.SENT, Status.DELIVERED),
        "in_doubt": (Status.SENDING, Status.IN_DOUBT),
        "failed": (Status.SENDING, Status.FAILED),
    }[path]
    bad = path in ("in_doubt", "failed")
    fields = {"error_class": "in_doubt", "error_code": "x", "error_detail": "y", "in_doubt": 1} if bad else {}
    move(sent["id"], *steps, attempt=1, **fields)
    body = api.get(f"messages/{sent['id']}").json()
    assert (body["status"], body["attempt_count"]) == (path, 1)
    # the sandbox gives no receipts, so what it took can no longer change
    assert body["final"] is (path != "in_doubt")
    assert bool(body["error"]) is bad
    assert bool(body["sent_at"]) is not bad
    assert bool(body["finished_at"]) is (path == "failed")


def test_a_test_service_reaches_the_sandbox_whatever_is_set_up(db: None) -> None:
    make_account(
        "sms", "twilio", "real", options={"account_sid": "AC1", "from_number": "+15550100"}, secrets={"auth_token": "t"}
    )
    tester = Api(make_caller("trying", test=True))
    body = tester.send()
    assert (body["provider"], body["account"]) == ("sandbox", "sandbox-sms")
    named = tester.send(account="real")
    assert named["provider"] == "sandbox"
    assert tester.caller.key.startswith("ck_test_")


def test_a_template_is_rendered_when_the_message_is_taken(api: Api) -> None:
    Template.objects.create(
        service=api.caller.service, name="hi", channel="sms", language="", version=1, text="Hola {{ name }}"
    )
    answer = api.post("messages", {"channel": "sms", "to": SMS["to"], "template": "hi", "context": {"name": "Ana"}})
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["text"], body["template"], body["context"]) == ("Hola Ana", "hi", {"name": "Ana"})


def test_ids_are_kept_from_the_request_and_given_back(api: Api) -> None:
    answer = api.post("messages", SMS, headers={"X-Request-Id": "from-the-caller"})
    assert answer["X-Request-Id"] == "from-the-caller"
    assert Message.objects.get().request_id == "from-the-caller"
    made = api.post("messages", SMS, headers={"X-Request-Id": "no spaces allowed"})["X-Request-Id"]
    assert len(made) == 32
