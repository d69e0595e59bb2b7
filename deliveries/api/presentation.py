"""How a message is written out. Called by the views, for one message and for lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection

from chaski.vocabulary import Status
from deliveries import pausing, reading
from deliveries.intake import Draft, Place
from deliveries.models import Account, Message, Pending
from deliveries.models.messages import LANES
from deliveries.pausing import Pauses

#: Of every message that was accepted a moment ago.
_NEW = {
    "status": Status.QUEUED,
    "batch_id": None,
    "attempt_count": 0,
    "in_doubt_count": 0,
    "provider_message_id": "",
    "error_class": "",
    "sent_at": None,
    "delivered_at": None,
    "read_at": None,
    "finished_at": None,
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is needed besides the rows themselves, read once for all of them."""

    now: datetime
    pauses: Pauses
    pending: dict[UUID, Pending]
    accounts: dict[int, str]
    slots: Mapping[int, float] = field(default_factory=dict)
    aheads: Mapping[UUID, reading.Ahead] = field(default_factory=dict)


def shown(message: Message) -> dict[str, Any]:
    """One message as it is now."""
    [written] = shown_all([message])
    return written


def shown_all(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as they are now, in five queries at most however many they are."""
    now, pauses = reading.now_and_pauses()
    found = Account.objects.filter(pk__in={message.account_id for message in messages})
    accounts = list(found.only("name", "channel", "provider", "options"))
    pending = reading.pending_of(messages)
    around = Surroundings(
        now=now,
        pauses=pauses,
        pending=pending,
        accounts={account.pk: account.name for account in accounts},
        slots=reading.until_slots(pending.values(), accounts, now),
        aheads=reading.aheads(pending.values()),
    )
    return [_present(message, around) for message in messages]


def shown_fresh(item: Draft, place: Place) -> dict[str, Any]:
    """A message that was accepted a moment ago, as it was then. Reads nothing but what is paused, now and then, and for which
    message one waits that has another ahead of it."""
    # What a look at the rows reads of them; two models would cost a tenth of the request.
    message = SimpleNamespace(
        **_NEW,
        pk=item.id,
        account_id=item.account.id,
        channel=item.channel,
        provider=item.account.provider,
        lane=LANES.index(item.lane),
        recipient=item.recipient,
        to=item.to,
        reference=item.reference,
        ordering_key=item.ordering_key,
        tags=item.tags,
        parts=item.content,
        options=item.options,
        metadata=item.metadata,
        created_at=place.accepted_at,
        updated_at=place.accepted_at,
        send_at=item.send_at,
        expires_at=item.expires_at,
    )
    pending = SimpleNamespace(
        message_id=item.id,
        channel=item.channel,
        service_id=item.service_id,
        account_id=item.account.id,
        batch_id=None,
        lease_until=None,
        due_at=place.due_at,
        blocked=place.blocked,
        waiting_for=place.waiting_for,
    )
    rows = {item.id: cast("Pending", pending)}
    around = Surroundings(
        place.accepted_at,
        pausing.recent.get(_pauses),
        rows,
        {item.account.id: item.account.name},
        aheads=_aheads(rows.values()),
    )
    return _present(cast("Message", message), around)


def _aheads(pending: Iterable[Pending]) -> Mapping[UUID, reading.Ahead]:
    """Those of messages that are accepted already: whatever the database says now, that must be told."""
    try:
        return reading.aheads(pending)
    except DatabaseError:
        return {}


def _pauses() -> Pauses:
    with connection.cursor() as cursor:
        return pausing.read(cursor)


def _present(message: Message, around: Surroundings) -> dict[str, Any]:
    pending = around.pending.get(message.pk)
    waits = reading.waiting(pending, around.pauses, around.now, around.slots, around.aheads.get(message.pk))
    return {
        **_as_given(message, around.accounts.get(message.account_id, "")),
        "recipient": message.recipient,
        "status": str(reading.effective_status(message, pending)),
        "final": reading.is_final(message, around.now),
        "waiting_for": str(waits.reason) if waits else None,
        "waiting_until": waits.until if waits else None,
        "waiting_behind": waits.ahead.id if waits and waits.ahead else None,
        "provider": message.provider,
        "provider_message_id": message.provider_message_id or None,
        "error": _error_of(message),
        "attempt_count": message.attempt_count + (1 if pending is not None and pending.lease_until else 0),
        "in_doubt_count": message.in_doubt_count,
        "batch_id": message.batch_id,
        "created_at": message.created_at,
        "updated_at": message.updated_at,
        "due_at": pending.due_at if pending is not None else None,
        "sent_at": message.sent_at,
        "delivered_at": message.delivered_at,
        "read_at": message.read_at,
        "finished_at": message.finished_at,
        "url": admin_url(message.pk),
    }


def _as_given(message: Message, account: str) -> dict[str, Any]:
    content = message.parts
    return {
        "id": message.pk,
        "channel": message.channel,
        "to": message.to,
        "text": content.get("text", ""),
        "subject": content.get("subject", ""),
        "html": content.get("html", ""),
        "template": content.get("template"),
        "context": content.get("context", {}),
        "language": content.get("language", ""),
        "attachments": content.get("attachments", []),
        "account": account,
        "send_at": message.send_at,
        "expires_at": message.expires_at,
        "priority": str(LANES[message.lane]),
        "ordering_key": message.ordering_key or None,
        "reference": message.reference or None,
        "tags": message.tags,
        "metadata": message.metadata,
        "options": message.options,
    }


def _error_of(message: Message) -> dict[str, str] | None:
    """The last error, while it still stands."""
    if not message.error_class:
        return None
    return {"code": message.error_code, "class": message.error_class, "detail": message.error_detail}


def admin_url(message_id: UUID) -> str:
    """The admin page of a message."""
    return f"{settings.CHASKI_PUBLIC_URL}/admin/deliveries/message/{message_id}/change/"
