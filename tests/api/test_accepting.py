"""POST /messages: what is taken, what is refused and how, and what a repeat gives."""

from __future__ import annotations

from collections.abc import Callable

from django.test import Client

from deliveries.models import Acceptance, Account, Message, Pending
from tests.factories import Caller

MESSAGE = {"channel": "sms", "to": "+56 9 1234 5678", "text": "Tu pedido va en camino"}


def test_an_accepted_message_is_a_row_a_place_in_the_queue_and_a_record(
    client: Client, shop: Caller, account: Callable[..., Account]
) -> None:
    account("sms")
    answer = client.post("/api/v1/messages", MESSAGE, content_type="application/json", headers=shop.headers)
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["status"], body["recipient"], body["to"]) == ("queued", "+56912345678", "+56 9 1234 5678")
    assert Message.objects.get().pk == Pending.objects.get().pk == Acceptance.objects.get().pk
