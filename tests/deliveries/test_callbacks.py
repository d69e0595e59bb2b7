"""Callbacks: every event that a service asked for, once, in signed requests that fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from channels.base import ReceiptKind
from deliveries import acts, callbacks
from deliveries.intake.fields import DEPTH_LIMIT
from deliveries.models import Endpoint, Message, Told, Untold
from deliveries.relay import Relay
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _endpoint(shop: Caller) -> None:
    make_account("sms")
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")


def made() -> list[dict[str, Any]]:
    """Make callbacks until there are none to make; their payloads."""
    with transaction.atomic(), connection.cursor() as cursor:
        for service in callbacks.services(cursor):
            while callbacks.make(cursor, service):
                pass
    return [message.options["payload"] for message in Message.objects.filter(origin="callback").order_by("pk")]


def events_of(payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        event for p in payloads for event in (p["data"]["events"] if p["type"] == "message.events" else [p["data"]])
    ]


def test_each_event_is_told_once_and_in_order(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service, reference="order-7", metadata={"cart": 12})
    steps.send(message_id)
    first = events_of(made())
    steps.receive(steps.message(message_id), ReceiptKind.DELIVERED)
    told = events_of(made())
    assert [event["status"] for event in told] == ["sending", "sent", "delivered"]
    assert [event["sequence"] for event in told] == [2, 3, 4]
    assert told[: len(first)] == first
    assert {event["reference"] for event in told} == {"order-7"}
    assert not Untold.objects.exists()


def test_a_single_event_has_its_own_type_and_a_failure_its_reason(shop: Caller) -> None:
    Endpoint.objects.update(events=["failed"])
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["recipient_refused"])
    (payload,) = made()
    assert payload["type"] == "message.failed"
    assert payload["data"]["error"] == {"class": "recipient_refused", "code": "21211"}


def test_only_the_chosen_events_are_told(shop: Caller) -> None:
    Endpoint.objects.update(events=["delivered"])
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    assert not made()
    steps.receive(steps.message(message_id), ReceiptKind.DELIVERED)
    assert [event["status"] for event in events_of(made())] == ["delivered"]


def test_a_callback_emits_no_callbacks_of_its_own(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    assert len(made()) == 1
    callback = Message.objects.get(origin="callback")
    (claimed,) = steps.claim(channel="webhook", ids=[callback.pk])
    steps.begun([claimed])
    steps.record(claimed, steps.ACCEPTED)
    assert len(made()) == 1


def test_events_too_large_for_one_request_go_out_in_several_and_the_relay_survives_them(shop: Caller) -> None:
    for message_id in steps.accept(shop.service, 40, metadata={"note": "ñ" * 940}, reference="r" * 200):
        steps.send(message_id)
    payloads = made()
    assert len(events_of(payloads)) == 80
    assert len(payloads) > 1
    assert max(len(json.dumps(payload)) for payload in payloads) < 65_536


def test_what_a_callback_told_is_written_down(shop: Caller) -> None:
    first, second = steps.accept(shop.service, 2)
    steps.send(first)
    made()
    steps.send(second)
    made()
    one, two = Message.objects.filter(origin="callback").order_by("pk")
    told = set(Told.objects.values_list("message_id", "sequence", "callback_id", "service_id"))
    service = shop.service.pk
    assert told == {(m, n, c.pk, service) for m, c in ((first, one), (second, two)) for n in (2, 3)}


def test_a_callback_that_is_refused_is_dead_with_its_reason_and_not_tried_again(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    Endpoint.objects.update(url="https://10.0.0.1/hooks")  # an address that was reachable when it was set
    assert len(made()) == 1
    assert len(made()) == 1, "it is not made again"
    callback = Message.objects.get(origin="callback")
    assert (callback.status, callback.error_class, callback.error_code) == (
        "failed",
        "recipient_refused",
        "refused_at_intake",
    )
    assert "to" in callback.error_detail
    assert not Untold.objects.exists()
    assert set(Told.objects.values_list("callback_id", flat=True)) == {callback.pk}
    assert not steps.pending(callback.pk)


def test_a_dead_callback_goes_out_when_it_is_redelivered(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    Endpoint.objects.update(url="https://10.0.0.1/hooks")
    made()
    callback = Message.objects.get(origin="callback")
    acts.redeliver(callback, actor="somebody")
    (claimed,) = steps.claim(channel="webhook")
    assert claimed.id == callback.pk
    assert callback.options["payload"]["type"] == "message.events"


def test_an_event_whose_reason_no_callback_can_hold_is_dead_alone(shop: Caller) -> None:
    long, short = steps.accept(shop.service, 2)
    acts.cancel(steps.message(long), actor="somebody", reason="r" * 70_000)
    acts.cancel(steps.message(short), actor="somebody")
    made()
    told = dict(Told.objects.values_list("message_id", "callback_id"))
    assert steps.message(told[long]).status == "failed"
    assert steps.message(told[long]).error_class == "content_refused"
    assert steps.message(told[short]).status == "queued"


@pytest.mark.django_db(transaction=True)
def test_metadata_too_deep_for_a_callback_is_left_out_of_it(shop: Caller) -> None:
    deep: object = 1
    for _ in range(DEPTH_LIMIT - 1):
        deep = {"a": deep}
    (message_id,) = steps.accept(shop.service, metadata={"a": deep})
    acts.cancel(steps.message(message_id), actor="somebody")
    relay = Relay()
    relay.tick()
    relay.close()
    callback = Message.objects.get(origin="callback")
    assert (callback.status, callback.options["payload"]["data"]["metadata"]) == ("queued", {})


def test_an_endpoint_set_at_this_moment_loses_none_of_its_first_events(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    with connection.cursor() as cursor:
        cursor.execute(callbacks.FORGET, {"service_id": shop.service.pk})
    assert Untold.objects.exists(), "the endpoint is active: what was asked for stays"


def test_a_service_without_an_endpoint_any_more_is_told_nothing(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    Endpoint.objects.update(active=False)
    assert not made()
    assert not Untold.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_one_job_of_the_relay_cannot_do_keeps_no_other_from_its_work(
    shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id)
    rung: list[object] = []

    def fails(*_: object, **__: object) -> int:
        raise RuntimeError("a callback that nobody foresaw")

    relay = Relay()
    monkeypatch.setattr(callbacks, "make", fails)
    monkeypatch.setattr(Relay, "_ring", lambda _: rung.append("rang"))
    relay.tick()
    relay.tick()
    relay.close()
    assert rung == ["rang", "rang"]
    assert Untold.objects.exists(), "the events wait for the next tick"
