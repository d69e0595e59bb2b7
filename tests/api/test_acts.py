"""POST /messages/{id}/cancel and /redeliver, and GET /messages/{id} with the whole life of a message."""

from __future__ import annotations

import pytest
from django.db import connection
from uuid_utils.compat import uuid7

from chaski.vocabulary import Status
from deliveries import acts
from deliveries.models import Audit, Event, Message, Pause, Pending
from deliveries.models.control import PauseScope
from tests.api.calls import Api, lease, move, problem

FAILED = (Status.SENDING, Status.FAILED)


def test_a_waiting_message_can_be_canceled_once(api: Api) -> None:
    sent = api.send()
    answer = api.post(f"messages/{sent['id']}/cancel")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["final"], body["waiting_for"]) == ("canceled", True, None)
    assert body["finished_at"]
    assert not Pending.objects.exists()
    assert "canceled" in problem(api.post(f"messages/{sent['id']}/cancel"), 409, "not_cancelable")["detail"]
    assert [act.actor for act in Audit.objects.filter(target=sent["id"])] == ["service:shop"]


def test_a_message_under_way_cannot_be_canceled(api: Api) -> None:
    sent = api.send()
    lease(sent["id"])
    assert "at this moment" in problem(api.post(f"messages/{sent['id']}/cancel"), 409, "not_cancelable")["detail"]
    assert Pending.objects.exists()


@pytest.mark.parametrize("path", [(Status.SENDING, Status.SENT), FAILED, (Status.SENDING, Status.IN_DOUBT)], ids=str)
def test_a_message_that_went_out_cannot_be_canceled(api: Api, path: tuple[Status, ...]) -> None:
    sent = api.send()
    move(sent["id"], *path)
    problem(api.post(f"messages/{sent['id']}/cancel"), 409, "not_cancelable")
    assert Message.objects.get().status == path[-1]


def test_canceling_the_head_lets_the_next_of_its_key_go(api: Api) -> None:
    head, second = (api.send(ordering_key="ana") for _ in range(2))
    api.post(f"messages/{head['id']}/cancel")
    assert api.get(f"messages/{second['id']}").json()["waiting_for"] is None


@pytest.mark.parametrize(
    "path",
    [FAILED, (Status.EXPIRED,), (Status.SENDING, Status.SENT, Status.UNDELIVERED)],
    ids=["failed", "expired", "undelivered"],
)
def test_what_ended_badly_can_be_redelivered_once(api: Api, path: tuple[Status, ...]) -> None:
    sent = api.send()
    move(sent["id"], *path)
    answer = api.post(f"messages/{sent['id']}/redeliver")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["final"], body["finished_at"]) == ("queued", False, None)
    assert Pending.objects.get().pk == Message.objects.get().pk
    problem(api.post(f"messages/{sent['id']}/redeliver"), 409, "not_redeliverable")


@pytest.mark.parametrize(
    "path", [(), (Status.CANCELED,), (Status.SENDING, Status.SENT)], ids=["queued", "canceled", "sent"]
)
def test_what_did_not_end_badly_cannot_be_redelivered(api: Api, path: tuple[Status, ...]) -> None:
    sent = api.send()
    if path:
        move(sent["id"], *path)
    before = Event.objects.count()
    problem(api.post(f"messages/{sent['id']}/redeliver"), 409, "not_redeliverable")
    assert Event.objects.count() == before


@pytest.mark.parametrize("act", ["cancel", "redeliver"])
def test_a_message_that_is_not_there_is_not_found(api: Api, act: str) -> None:
    problem(api.post(f"messages/{uuid7()}/{act}"), 404, "not_found")


def test_a_body_and_its_type_do_not_matter_to_an_act(api: Api) -> None:
    sent = api.send()
    assert api.post(f"messages/{sent['id']}/cancel", raw=b"", content_type="text/plain").status_code == 200


def test_a_message_shows_its_whole_life(api: Api) -> None:
    sent = api.send()
    account = Message.objects.get().account
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO attempt (message_id, number, token, account_id, worker, task_id, opened_at, begun_at, finished_at,"
            " outcome, code, detail, provider_message_id) VALUES (%s, 1, gen_random_uuid(), %s, 'w', 't', now(), now(), now(),"
            " 'accepted', '', 'ok', 'p1')",
            [sent["id"], account.pk],
        )
        cursor.execute(
            "INSERT INTO receipt (account_id, event_id, kind, message_id, provider_message_id, code, detail, effect)"
            " VALUES (%s, 'e1', 'delivered', %s, 'p1', '', '', 'moved')",
            [account.pk, sent["id"]],
        )
    move(sent["id"], Status.SENDING, Status.SENT, Status.DELIVERED, attempt=1, provider_message_id="p1")
    body = api.get(f"messages/{sent['id']}").json()
    assert [event["status"] for event in body["events"]] == ["queued", "sending", "sent", "delivered"]
    assert [event["sequence"] for event in body["events"]] == [1, 2, 3, 4]
    [attempt], [receipt] = body["attempts"], body["receipts"]
    assert (attempt["number"], attempt["account"], attempt["outcome"]) == (1, "main", "accepted")
    assert (receipt["kind"], receipt["effect"], receipt["at"]) == ("delivered", "moved", None)
    assert (body["status"], body["provider_message_id"], body["final"]) == ("delivered", "p1", True)


@pytest.mark.parametrize(
    ("scope", "value", "waits_for"),
    [
        (PauseScope.ALL, lambda m: "", "paused"),
        (PauseScope.CHANNEL, lambda m: m.channel, "paused"),
        (PauseScope.SERVICE, lambda m: str(m.service_id), "paused"),
        (PauseScope.ACCOUNT, lambda m: str(m.account_id), "operator"),
    ],
    ids=["everything", "channel", "service", "account"],
)
def test_what_is_paused_is_seen_on_each_message_at_once(api: Api, scope, value, waits_for) -> None:  # type: ignore[no-untyped-def]
    sent = api.send()
    acts.pause(scope, value(Message.objects.get()), actor="op")
    assert api.get(f"messages/{sent['id']}").json()["waiting_for"] == waits_for
    Pause.objects.all().delete()
    assert api.get(f"messages/{sent['id']}").json()["waiting_for"] is None
