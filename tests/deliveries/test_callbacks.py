"""Callbacks: every event that a service asked for, once, in signed requests that fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from channels.base import ReceiptKind
from deliveries import callbacks
from deliveries.models import Endpoint, Message, Untold
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
