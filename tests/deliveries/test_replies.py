"""Replies: stored once, tied to the conversation they belong to, heeded, and told to the service once."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from channels.inbound import Reply as Written
from deliveries import acts, callbacks, replies
from deliveries.models import Account, Audit, Contact, Endpoint, Message, Reply, Suppression
from deliveries.retry import Outcome
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
ANA = "+56912345678"


@pytest.fixture
def account(shop: Caller) -> Account:
    return make_account("sms", service=shop.service)


@pytest.fixture
def shared(db: None) -> Account:
    return make_account("sms", name="shared")


def come(account: Account, *written: Written) -> list[Reply]:
    """They come in and are applied."""
    with transaction.atomic(), psycopg.Cursor(connection.connection) as cursor:  # as the relay has it: the server binds
        replies.store(cursor, [(account.pk, written)])
        while replies.apply(cursor):
            pass
    return list(Reply.objects.order_by("pk"))


def write(text: str = "Hola", event_id: str = "reply:1", sender: str = ANA, **fields: Any) -> Written:
    return Written(event_id, sender, text, **fields)


def test_a_reply_is_kept_once_however_often_it_is_reported(account: Account) -> None:
    first = write(name="Ana\0", files=("https://cdn/a",), at=datetime(2026, 1, 1, tzinfo=UTC))
    for _ in range(2):
        [kept] = come(account, first, first)
    assert (kept.text, kept.name, kept.files, kept.sender) == ("Hola", "Ana", ["https://cdn/a"], ANA)
    assert kept.applied_at is not None


def test_it_belongs_to_the_message_that_it_answers_or_to_the_last_one_to_that_person(
    shop: Caller, account: Account
) -> None:
    first, second, _scheduled = steps.accept(shop.service, 3, to=ANA)
    other = steps.accept(shop.service, to="+56900000000")[0]
    for each in (first, second, other):
        steps.send(each, Outcome(provider_message_id="p1" if each == first else ""))
    kept = come(
        account,
        write(event_id="a", answers="p1"),
        write(event_id="b"),
        write(event_id="c", sender="+56 9 0000 0000"),
        write(event_id="d", sender="+56911111111"),
    )
    assert [reply.message_id for reply in kept] == [first, second, other, None]
    assert kept[2].sender == "+56900000000"
    assert {reply.service_id for reply in kept} == {shop.service.pk}


def test_at_a_shared_account_it_belongs_to_who_wrote_last(shop: Caller, other: Caller, shared: Account) -> None:
    steps.send(steps.accept(other.service, to=ANA)[0])
    steps.send(steps.accept(shop.service, to=ANA)[0])
    steps.accept(other.service, to=ANA)  # who has sent nothing yet hears nothing
    kept = come(shared, write(event_id="a"), write(event_id="b", sender="+56911111111"))
    assert [reply.service_id for reply in kept] == [shop.service.pk, None]


def test_what_was_written_long_ago_is_another_conversation(shop: Caller, account: Account) -> None:
    steps.send(steps.accept(shop.service, to=ANA)[0])
    with transaction.atomic(), connection.cursor() as cursor:
        replies.store(cursor, [(account.pk, [write()])])
        cursor.execute("UPDATE reply SET received_at = received_at + interval '31 days'")
        replies.apply(cursor)
    assert Reply.objects.get().message_id is None


def test_one_that_cannot_be_written_keeps_no_other_from_it(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    heed = replies._heed

    def spoiled(cursor: Any, reply: Any) -> None:
        if reply.text == "spoiled":
            cursor.execute("SELECT 1/0")
        heed(cursor, reply)

    monkeypatch.setattr(replies, "_heed", spoiled)
    kept = come(account, write(event_id="a"), write("spoiled", "b"), write("STOP", "c"))
    assert [bool(reply.applied_at) for reply in kept] == [True, True, True]
    assert [reply.service_id for reply in kept] == [account.service_id, None, account.service_id]
    assert Suppression.objects.count() == 1


# -- what people ask for


def test_stop_suppresses_and_start_lifts_it_with_both_in_the_audit(shop: Caller, account: Account) -> None:
    come(account, write("STOP"))
    suppression = Suppression.objects.get()
    assert (suppression.channel, suppression.recipient, suppression.service) == ("sms", ANA, shop.service)
    assert "STOP" in suppression.reason
    [kept] = Reply.objects.all()
    assert kept.wish == "stop"
    come(account, write("alta", "reply:2"))
    assert not Suppression.objects.exists()
    assert list(Audit.objects.order_by("pk").values_list("actor", "action")) == [
        ("recipient", "suppress"),
        ("recipient", "unsuppress"),
    ]


def test_a_word_to_a_shared_account_is_meant_for_all(shared: Account, shop: Caller) -> None:
    steps.accept(shop.service, to=ANA)
    come(shared, write("STOP"))
    assert Suppression.objects.get().service is None


def test_the_last_word_counts(account: Account) -> None:
    come(account, write("STOP", "a"), write("START", "b"), write("STOP", "c"))
    assert Suppression.objects.exists()
    come(account, write("STOP", "d"), write("START", "e"))
    assert not Suppression.objects.exists()


def test_words_count_by_when_they_were_written_not_by_when_they_came(account: Account) -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    come(account, write("STOP", "a", at=late), write("START", "b", at=early))
    assert Suppression.objects.exists()
    come(account, write("START", "c", at=early))
    assert Suppression.objects.exists(), "a repeat of what was before"
    come(account, write("START", "d"))
    come(account, write("STOP", "e", at=late))
    assert not Suppression.objects.exists()


def test_a_member_of_a_group_does_not_speak_for_it(shop: Caller) -> None:
    group = make_account("telegram", name="bot", service=shop.service)
    come(group, write("stop", sender="-100123"), write("stop", "b", sender="42"))
    assert [each.recipient for each in Suppression.objects.all()] == ["42"]


def test_one_relay_at_a_time_applies_replies(account: Account) -> None:
    other = connection.copy()
    with closing(other):
        other.set_autocommit(False)
        other.cursor().execute(replies.ALONE)
        with transaction.atomic(), connection.cursor() as cursor:
            replies.store(cursor, [(account.pk, [write()])])
            assert replies.apply(cursor) == 0


def test_a_word_lifts_nothing_that_somebody_else_decided(shop: Caller, account: Account) -> None:
    acts.suppress("sms", ANA, service_id=shop.service.pk, actor="admin:eva", reason="by law")
    come(account, write("STOP", "a"), write("START", "b"))
    assert Suppression.objects.get().actor == "admin:eva"


def test_when_a_person_last_wrote_is_remembered(account: Account) -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    come(account, write(event_id="a", at=late), write(event_id="b", at=early))
    come(account, write(event_id="c", at=early))
    contact = Contact.objects.get()
    assert (contact.account_id, contact.person, contact.replied_at) == (account.pk, ANA, late)
    come(account, write(event_id="d", at=datetime.now(UTC) + timedelta(days=9)))
    assert Contact.objects.get().replied_at < datetime.now(UTC) + timedelta(minutes=1), "no clock of a vendor's leads"


# -- how the service hears of them


def told() -> list[dict[str, Any]]:
    with steps.as_the_engine_reads() as cursor:
        for service in callbacks.reply_services(cursor):
            while callbacks.tell_replies(cursor, service):
                pass
    return [message.options["payload"] for message in Message.objects.filter(origin="callback").order_by("pk")]


@pytest.fixture
def endpoint(shop: Caller) -> None:
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")


def test_a_reply_is_told_once_with_its_message(endpoint: None, shop: Caller, account: Account) -> None:
    (message_id,) = steps.accept(shop.service, to=ANA, reference="order-7", metadata={"cart": 12})
    steps.send(message_id)
    Endpoint.objects.update(events=["reply"])
    come(account, write("¿Cuándo llega?", name="Ana"))
    [payload] = told()
    data = payload["data"]
    assert payload["type"] == "reply.received"
    assert (data["from"], data["text"], data["name"], data["channel"]) == (ANA, "¿Cuándo llega?", "Ana", "sms")
    assert (data["message_id"], data["reference"], data["metadata"]) == (str(message_id), "order-7", {"cart": 12})
    assert told() == [payload]
    reply = Reply.objects.get()
    assert reply.callback_id == Message.objects.get(origin="callback").pk


def test_many_are_told_together_within_the_limits(endpoint: None, account: Account) -> None:
    come(account, *(write("ñ" * (6_000 if number % 9 == 0 else 90), f"reply:{number}") for number in range(60)))
    payloads = told()
    events = [event for payload in payloads for event in payload["data"].get("events", [payload["data"]])]
    assert len(events) == 60
    assert {(event["text_cut"], len(event["text"])) for event in events} == {(True, callbacks.TEXT), (False, 90)}
    assert max(len(json.dumps(payload, ensure_ascii=False).encode()) for payload in payloads) < 65_536
    assert [event["reply_id"] for event in events] == sorted(event["reply_id"] for event in events)


@pytest.mark.parametrize(("events", "wanted"), [([], True), (["reply"], True), (["failed"], False)])
def test_an_endpoint_hears_of_replies_if_it_asked(
    endpoint: None, account: Account, events: list[str], wanted: bool
) -> None:
    Endpoint.objects.update(events=events)
    come(account, write())
    assert bool(told()) is wanted
    assert Reply.objects.get().told_at is not None


def test_without_an_endpoint_nothing_is_told_later(shop: Caller, account: Account) -> None:
    come(account, write())
    assert told() == []
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")
    assert told() == []


def test_what_belongs_to_nobody_is_kept_and_told_to_nobody(endpoint: None, shared: Account) -> None:
    come(shared, write())
    assert told() == []
    assert Reply.objects.get().told_at is None


def test_an_endpoint_may_be_set_for_replies_alone(shop: Caller) -> None:
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks", "--events", "reply")
    assert Endpoint.objects.get().events == ["reply"]
