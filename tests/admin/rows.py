"""Messages in every state, made the way the service makes them: accepted, claimed, settled. Used by the admin's tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.db import connection, transaction

from chaski.vocabulary import ErrorClass, Lane, Status
from deliveries import intake
from deliveries.delivery import claim
from deliveries.delivery.begin import begin
from deliveries.delivery.settle import Settlement, settle
from deliveries.models import Message, Service
from deliveries.models.messages import Origin
from deliveries.pausing import Pauses
from deliveries.retry import Decision, Outcome

NOTHING_PAUSED = Pauses(
    everything=False, channels=frozenset(), accounts=frozenset(), services=frozenset(), batches=frozenset()
)
ACCEPTED = Outcome(provider_message_id="SM0001")
REFUSED = Outcome(str(ErrorClass.RECIPIENT_REFUSED), "21211", "The 'To' number is not valid")
UNANSWERED = Outcome(str(ErrorClass.IN_DOUBT), "timeout", "no answer within 15 s")


def accept(service: Service, **fields: Any) -> Message:
    """One accepted message that waits for a worker."""
    given = {"channel": "sms", "to": "+56912345678", "text": "Your parcel is on its way"} | fields
    answer = intake.accept([intake.draft(service, given)], origin=Origin.API)[0]
    return Message.objects.get(pk=answer.id)


def accept_many(service: Service, count: int, **fields: Any) -> list[Message]:
    """``count`` accepted messages to different numbers."""
    given = [
        {"channel": "sms", "to": f"+569123{number:05d}", "text": "Hello", "reference": f"order-{number}"} | fields
        for number in range(count)
    ]
    answers = intake.accept([intake.draft(service, each) for each in given], origin=Origin.API)
    return list(Message.objects.filter(pk__in=[answer.id for answer in answers]).order_by("pk"))


def lease(message: Message, *, task_id: str = "") -> claim.Claimed:
    """A worker takes the message: its attempt is open and begun."""
    request = claim.Request(
        channel=message.channel,
        lane=Lane.BULK,
        n=1,
        lease_seconds=60,
        worker="worker1@host",
        task_id=task_id or str(uuid4()),
        pauses=NOTHING_PAUSED,
        ids=(str(message.pk),),
    )
    with transaction.atomic(), connection.cursor() as cursor:
        claimed = claim.Claimer().claim(cursor, request).messages
        begin(cursor, claimed[0].token, [message.pk])
    return claimed[0]


def settled(message: Message, outcome: Outcome, decision: Decision, *, task_id: str = "") -> Message:
    """One attempt with ``outcome``, after which ``decision`` was taken."""
    claimed = lease(message, task_id=task_id)
    settlement = Settlement(
        id=claimed.id,
        number=claimed.number,
        token=claimed.token,
        account_id=claimed.account_id,
        opened_at=claimed.opened_at,
        outcome=outcome,
        decision=decision,
        at=datetime.now(UTC),
    )
    with transaction.atomic(), connection.cursor() as cursor:
        settle(cursor, [settlement])
    message.refresh_from_db()
    return message


def sent(message: Message, **outcome: Any) -> Message:
    """The provider took it over."""
    return settled(message, Outcome(**outcome) if outcome else ACCEPTED, Decision((Status.SENT,)))


def failed(message: Message, outcome: Outcome = REFUSED, *, task_id: str = "") -> Message:
    """The provider refused it for good."""
    return settled(message, outcome, Decision((Status.FAILED,)), task_id=task_id)


def in_doubt(message: Message) -> Message:
    """The answer never came and an operator must look."""
    decision = Decision((Status.IN_DOUBT,), held=True, waiting_for="operator", in_doubt=1)
    return settled(message, UNANSWERED, decision)
