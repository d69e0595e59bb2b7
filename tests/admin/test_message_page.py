"""The page of one message: the answer to support's question, the timeline, the links, the acts, and the body."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from channels.base import Receipt as ProviderReceipt
from channels.base import ReceiptKind
from chaski.vocabulary import ErrorClass, Status
from deliveries import acts, callbacks, lifecycle
from deliveries.lifecycle import Move
from deliveries.models import Audit, Batch, Contact, Message, Pending, Service
from deliveries.models.control import PauseScope
from deliveries.retry import Decision, Outcome
from deliveries.setting_up import set_endpoint
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.admin.test_message_list import OF_THE_PERSON

#: The message, what ``trace`` asks (9), its service and account, its callbacks and what is untold.
OF_THE_PAGE = 16


def address(message: Message, view: str = "change") -> str:
    return reverse(f"admin:deliveries_message_{view}", args=[message.pk])


def page(client: Client, message: Message) -> str:
    answer = client.get(address(message))
    assert answer.status_code == 200
    return answer.content.decode()


def move(message: Message, *path: Status, **fields: Any) -> Message:
    with transaction.atomic(), connection.cursor() as cursor:
        assert lifecycle.apply(cursor, [Move(message.pk, path, **fields)])
    message.refresh_from_db()
    return message


def retried(message: Message) -> Message:
    later = datetime.now(UTC) + timedelta(minutes=2)
    return rows.settled(
        message, rows.UNANSWERED, Decision((Status.QUEUED,), due_at=later, waiting_for="retry", tries=1)
    )


def read(message: Message) -> Message:
    return move(rows.sent(message), Status.READ)


def delivered(message: Message) -> Message:
    return move(rows.sent(message), Status.DELIVERED)


def undelivered(message: Message) -> Message:
    return move(rows.sent(message), Status.UNDELIVERED)


def expired(message: Message) -> Message:
    return move(message, Status.EXPIRED)


def canceled(message: Message) -> Message:
    acts.cancel(message, actor="shell:ana", reason="wrong list")
    return message


def suppressed(message: Message) -> Message:
    return move(message, Status.SUPPRESSED)


def sending(message: Message) -> Message:
    rows.lease(message)
    return message


@pytest.mark.parametrize(
    ("become", "answer", "because"),
    [
        (lambda message: message, "Not yet.", "It is due and waits for a worker."),
        (sending, "Not yet.", "A worker is sending it at this moment."),
        (retried, "Not yet.", "It waits for its next attempt until"),
        (rows.sent, "Probably.", "This provider tells no more."),
        (delivered, "Yes.", "The provider reported delivery at"),
        (read, "Yes.", "The recipient read it at"),
        (undelivered, "No.", "gave it up later"),
        (rows.failed, "No.", "The provider refused the recipient (21211: The &#x27;To&#x27; number is not valid)."),
        (expired, "No.", "Its time ran out at"),
        (canceled, "No.", "It was withdrawn before it was sent"),
        (suppressed, "No.", "The recipient must not be written to on this channel."),
        (rows.in_doubt, "Nobody knows.", "the provider&#x27;s answer never came"),
    ],
)
def test_every_status_answers_whether_it_arrived_and_why(
    boss: Client, service: Service, become: Any, answer: str, because: str
) -> None:
    html = page(boss, become(rows.accept(service)))
    assert f"<strong>{answer}</strong>" in html
    assert because in html


def test_what_was_not_allowed_says_when_the_recipient_last_wrote(boss: Client, service: Service) -> None:
    closed = Outcome(str(ErrorClass.NOT_ALLOWED_NOW), "131047", "more than 24 hours have passed")
    message = rows.failed(rows.accept(service), closed)
    assert "last wrote" not in page(boss, message), "nobody told us"
    wrote = datetime(2026, 11, 25, 10, 3, tzinfo=UTC)
    Contact.objects.create(account_id=message.account_id, person=message.recipient, replied_at=wrote)
    assert "The recipient last wrote to this account at 2026-11-25 10:03:00 UTC." in page(boss, message)


def test_a_pause_is_named_as_what_the_message_waits_for(boss: Client, service: Service) -> None:
    message = rows.accept(service)
    acts.pause(PauseScope.CHANNEL, "sms", actor="shell:ana")
    assert "It waits for an operator to resume what is paused." in page(boss, message)


def test_the_timeline_tells_everything_in_order(boss: Client, service: Service, settings: Any) -> None:
    settings.CHASKI_FLOWER_URL = "https://flower.example"
    task = str(uuid4())
    message = rows.failed(rows.accept(service), task_id=task)
    acts.redeliver(message, actor="admin:ana", reason="she gave us the number again")
    rows.sent(message, provider_message_id="SM42")
    html = page(boss, message)
    order = [
        "accepted and queued",
        "attempt 1 through texts: the provider refused the recipient (21211: The &#x27;To&#x27; number is not valid)",
        f'<a href="https://flower.example/task/{task}"',
        "failed: the provider refused the recipient (21211)",
        "queued by admin:ana: she gave us the number again",
        "attempt 2 through texts: accepted",
        "provider&#x27;s id <bdi>SM42</bdi>",
    ]
    places = [html.find(words) for words in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert "admin:ana asked for: redeliver" in html


def test_a_receipt_stands_in_the_timeline_with_what_it_did(boss: Client, service: Service) -> None:
    from deliveries import receipts

    message = rows.sent(rows.accept(service), provider_message_id="SM42")
    told = ProviderReceipt(
        "e1", ReceiptKind.UNDELIVERED, provider_message_id="SM42", code="30005", detail="unknown handset"
    )
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(message.account_id, [told])])
        receipts.apply(cursor)
    html = page(boss, message)
    assert "receipt: undelivered 30005 unknown handset (moved the message)" in html
    assert "Its receipt says 30005 unknown handset." in html


def test_the_page_links_to_account_service_batch_and_the_recipients_other_messages(
    boss: Client, service: Service
) -> None:
    message = rows.accept(service)
    batch = Batch.objects.create(service=service)
    Message.objects.filter(pk=message.pk).update(batch=batch)
    html = page(boss, message)
    for href in (
        reverse("admin:deliveries_account_change", args=[message.account_id]),
        reverse("admin:deliveries_service_change", args=[service.pk]),
        reverse("admin:deliveries_batch_change", args=[batch.pk]),
        "/admin/deliveries/message/?q=%2B56912345678",
    ):
        assert f'href="{href}"' in html


@pytest.mark.parametrize("events", [1, 3])
def test_the_page_links_to_the_callbacks_that_told_of_it(boss: Client, service: Service, events: int) -> None:
    set_endpoint(service, "http://127.0.0.1:9/hook", [], actor="shell:ana")
    message = rows.accept(service)
    for other in rows.accept_many(service, events - 1):
        rows.failed(other)
    rows.failed(message)
    assert "has not been told of" in page(boss, message)
    with transaction.atomic(), connection.cursor() as cursor:
        for service_id in callbacks.services(cursor):
            callbacks.make(cursor, service_id)
    callback = Message.objects.get(origin="callback")
    html = page(boss, message)
    assert f'<a href="{address(callback)}">Callback {callback.pk}</a> queued' in html
    assert "has not been told of" not in html


def test_a_callback_about_another_message_is_not_linked(boss: Client, service: Service) -> None:
    set_endpoint(service, "http://127.0.0.1:9/hook", [], actor="shell:ana")
    message = rows.accept(service)
    rows.failed(rows.accept(service))
    with transaction.atomic(), connection.cursor() as cursor:
        for service_id in callbacks.services(cursor):
            callbacks.make(cursor, service_id)
    assert "Callback " not in page(boss, message)


@pytest.mark.parametrize("attempts", [1, 6])
def test_the_number_of_queries_does_not_grow_with_the_timeline(enter: Enter, service: Service, attempts: int) -> None:
    message = rows.failed(rows.accept(service))
    for number in range(attempts - 1):
        acts.redeliver(message, actor="admin:ana", reason=f"again {number}")
        rows.failed(message)
    viewer = enter("viewer")
    with CaptureQueriesContext(connection) as queries:
        page(viewer, message)
    assert len(queries) == OF_THE_PERSON + OF_THE_PAGE, [query["sql"][:100] for query in queries]


def test_an_id_that_does_not_exist_leads_to_the_start_page(boss: Client, service: Service) -> None:
    for given in (uuid4(), "no-id"):
        answer = boss.get(f"/admin/deliveries/message/{given}/change/", follow=True)
        assert "exist. Perhaps it was deleted?" in answer.content.decode()


def act(client: Client, message: Message, verb: str, reason: str = "because") -> str:
    answer = client.post(address(message, "act"), {"act": verb, "reason": reason}, follow=True)
    assert answer.redirect_chain == [(address(message), 302)]
    return answer.content.decode()


@pytest.mark.parametrize(
    ("become", "verb", "said", "status"),
    [
        (rows.failed, "redeliver", "The message is queued again.", "queued"),
        (lambda message: message, "cancel", "The message is canceled.", "canceled"),
        (rows.in_doubt, "resolve_sent", "The message is resolved as sent.", "sent"),
        (rows.in_doubt, "resolve_failed", "The message is resolved as failed.", "failed"),
        (rows.in_doubt, "resolve_retry", "The message is resolved by sending it again.", "queued"),
    ],
)
def test_an_operator_acts_with_a_reason(
    enter: Enter, service: Service, become: Any, verb: str, said: str, status: str
) -> None:
    operator = enter("operator", name="ana")
    message = become(rows.accept(service))
    assert f'name="act" value="{verb}"' in page(operator, message)
    assert said in act(operator, message, verb, "the customer called")
    message.refresh_from_db()
    assert message.status == status
    audit = Audit.objects.get(target=str(message.pk))
    assert (audit.actor, audit.reason) == ("admin:ana", "the customer called")


@pytest.mark.parametrize(
    ("become", "verb", "sentence"),
    [
        (rows.sent, "redeliver", "it is sent; only a failed, undelivered or expired message can be redelivered"),
        (rows.sent, "cancel", "it is sent; only a message that still waits can be canceled"),
        (sending, "cancel", "it is being sent at this moment; ask again in a minute"),
        (rows.failed, "resolve_sent", "it is failed, not in doubt"),
        (rows.failed, "explode", "There is no such act"),
    ],
)
def test_a_refused_act_says_why_and_changes_nothing(
    boss: Client, service: Service, become: Any, verb: str, sentence: str
) -> None:
    message = become(rows.accept(service))
    before = Message.objects.filter(pk=message.pk).values().get()
    assert sentence in act(boss, message, verb)
    assert Message.objects.filter(pk=message.pk).values().get() == before
    assert not Audit.objects.exists()


def test_without_a_reason_nothing_is_done(boss: Client, service: Service) -> None:
    message = rows.failed(rows.accept(service))
    assert "give a reason" in act(boss, message, "redeliver", "  ")
    message.refresh_from_db()
    assert message.status == "failed"


def test_acts_need_the_permission_and_a_post(enter: Enter, service: Service) -> None:
    message = rows.accept(service)
    viewer, operator = enter("viewer"), enter("operator")
    assert "chaski-button" not in page(viewer, message)
    assert viewer.post(address(message, "act"), {"act": "cancel", "reason": "x"}).status_code == 403
    assert operator.get(address(message, "act"), {"act": "cancel", "reason": "x"}).status_code == 405
    assert Pending.objects.filter(pk=message.pk).exists()


def test_acts_need_the_token_against_forged_requests(service: Service, boss: Client) -> None:
    message = rows.accept(service)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = boss.cookies
    assert strict.post(address(message, "act"), {"act": "cancel", "reason": "x"}).status_code == 403
