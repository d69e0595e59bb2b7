"""The shapes of the API: what OpenAPI shows, and how a message is written out."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from rest_framework import serializers

from channels.media import MEDIA
from chaski.vocabulary import ErrorClass, Lane, Status
from deliveries import reading
from deliveries.models import Message, Pending
from deliveries.models.messages import LANES
from deliveries.pausing import Pauses


def _reasons() -> serializers.ListField:
    return serializers.ListField(child=serializers.CharField())


STATUS_CHOICES = [(str(status), str(status)) for status in Status]


class MessageIn(serializers.Serializer[Any]):
    """A message as a service asks for it. Checked by `deliveries.intake.draft`, which knows every rule."""

    id = serializers.UUIDField(required=False, help_text="A UUIDv7 minted by the client; made here if left out.")
    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField(help_text="Phone +56912345678, e-mail address, chat id, URL: by the channel.")
    text = serializers.CharField(required=False)
    subject = serializers.CharField(required=False)
    html = serializers.CharField(required=False)
    template = serializers.CharField(required=False)
    context = serializers.DictField(required=False)  # type: ignore[assignment]
    language = serializers.CharField(required=False)
    account = serializers.CharField(required=False, help_text="The name of one of the service's accounts.")
    send_at = serializers.DateTimeField(required=False)
    expires_at = serializers.DateTimeField(required=False)
    priority = serializers.ChoiceField(choices=[str(lane) for lane in Lane], required=False)
    ordering_key = serializers.CharField(required=False)
    reference = serializers.CharField(required=False)
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    metadata = serializers.DictField(required=False)
    options = serializers.DictField(required=False, help_text="The provider's own, see docs/reference/providers.md.")


class BatchRow(MessageIn):
    """A message in a batch, with its own idempotency key."""

    key = serializers.CharField(required=False)


class BatchIn(serializers.Serializer[Any]):
    """Up to 10,000 messages."""

    id = serializers.UUIDField(required=False, help_text="A UUIDv7; a further call with it adds to the same batch.")
    messages = BatchRow(many=True)


class Rejected(serializers.Serializer[Any]):
    """A row that was not taken."""

    index = serializers.IntegerField()
    errors = serializers.DictField(child=_reasons())  # type: ignore[assignment]


class BatchOut(serializers.Serializer[Any]):
    """What became of a batch's rows."""

    id = serializers.UUIDField()
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = Rejected(many=True)


class BatchState(serializers.Serializer[Any]):
    """Where a batch's messages are."""

    id = serializers.UUIDField()
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = serializers.IntegerField()
    counts = serializers.DictField(child=serializers.IntegerField())
    finished = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    forecast_at = serializers.DateTimeField(allow_null=True)


class ErrorOut(serializers.Serializer[Any]):
    """Why a message is not delivered."""

    code = serializers.CharField()
    detail = serializers.CharField()

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "class": serializers.ChoiceField(choices=[str(c) for c in ErrorClass])}


class MessageOut(MessageIn):
    """A message as Chaski keeps it."""

    status = serializers.ChoiceField(choices=STATUS_CHOICES)
    final = serializers.BooleanField()
    waiting_for = serializers.CharField(allow_null=True)
    waiting_until = serializers.DateTimeField(allow_null=True)
    provider = serializers.CharField()
    provider_message_id = serializers.CharField(allow_null=True)
    recipient = serializers.CharField()
    error = ErrorOut(allow_null=True)
    attempt_count = serializers.IntegerField()
    in_doubt_count = serializers.IntegerField()
    batch_id = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField(allow_null=True)
    sent_at = serializers.DateTimeField(required=False, allow_null=True)
    delivered_at = serializers.DateTimeField(required=False, allow_null=True)
    read_at = serializers.DateTimeField(required=False, allow_null=True)
    finished_at = serializers.DateTimeField(required=False, allow_null=True)
    url = serializers.URLField()


class MessageDetail(MessageOut):
    """A message with its whole life."""

    attempts = serializers.ListField(child=serializers.DictField())
    receipts = serializers.ListField(child=serializers.DictField())
    events = serializers.ListField(child=serializers.DictField())


class MessagePage(serializers.Serializer[Any]):
    """A page of messages, newest first; `next` is the cursor of the following one."""

    results = MessageOut(many=True)
    next = serializers.CharField(allow_null=True)


class Me(serializers.Serializer[Any]):
    """The service that the key belongs to."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    test = serializers.BooleanField()
    limits = serializers.DictField()
    usage = serializers.DictField()


class SuppressionShape(serializers.Serializer[Any]):
    """A recipient that must not be written to."""

    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField()
    reason = serializers.CharField(required=False)


class ProblemOut(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    errors = serializers.DictField(child=_reasons())  # type: ignore[assignment]
    request_id = serializers.CharField()


def present(message: Message, pending: Pending | None, pauses: Pauses, now: datetime) -> dict[str, Any]:
    """``message`` as the API writes it."""
    waits = reading.waiting(pending, pauses, now)
    content = message.content
    return {
        "id": message.pk,
        "channel": message.channel,
        "to": message.to,
        "recipient": message.recipient,
        "text": content.get("text", ""),
        "subject": content.get("subject", ""),
        "html": content.get("html", ""),
        "template": content.get("template"),
        "status": str(reading.effective_status(message, pending)),
        "final": reading.is_final(message, now),
        "waiting_for": waits.reason if waits else None,
        "waiting_until": waits.until if waits else None,
        "provider": message.provider,
        "provider_message_id": message.provider_message_id or None,
        "priority": str(LANES[message.lane]),
        "ordering_key": message.ordering_key or None,
        "reference": message.reference or None,
        "tags": message.tags,
        "metadata": message.metadata,
        "options": message.options,
        "error": error_of(message),
        "attempt_count": message.attempt_count + (1 if pending is not None and pending.lease_until else 0),
        "in_doubt_count": message.in_doubt_count,
        "batch_id": message.batch_id,
        "created_at": message.created_at,
        "updated_at": message.updated_at,
        "due_at": pending.due_at if pending is not None else None,
        "send_at": message.send_at,
        "expires_at": message.expires_at,
        "sent_at": message.sent_at,
        "delivered_at": message.delivered_at,
        "read_at": message.read_at,
        "finished_at": message.finished_at,
        "url": admin_url(message.pk),
    }


def error_of(message: Message) -> dict[str, str] | None:
    """The last error, while it still stands."""
    if not message.error_class:
        return None
    return {"code": message.error_code, "class": message.error_class, "detail": message.error_detail}


def admin_url(message_id: UUID) -> str:
    """The admin page of a message."""
    return f"{settings.CHASKI_PUBLIC_URL}/admin/deliveries/message/{message_id}/change/"
