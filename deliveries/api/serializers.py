"""The shapes of the API, as OpenAPI shows them. What comes in is checked by `deliveries.intake.draft`, which knows every rule."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from channels.media import MEDIA
from chaski.vocabulary import ErrorClass, Lane, Status, WaitingFor
from deliveries.intake.fields import KEY_LIMIT, TAG_LIMIT

STATUS_CHOICES = [(str(status), str(status)) for status in Status]
LANE_CHOICES = [str(lane) for lane in Lane]


def _reasons() -> serializers.ListField:
    return serializers.ListField(child=serializers.CharField())


def _object(**options: Any) -> Any:
    """Any JSON object. Typed ``Any`` because some fields below have names that DRF's own attributes have too."""
    return serializers.DictField(**options)


class AttachmentIn(serializers.Serializer[Any]):
    """A file that goes with a message: one that was sent to `/files`, by its id, or one that anybody can fetch, by its URL.

    The answer of `/files` can be given as it is.
    """

    id = serializers.UUIDField(required=False, allow_null=True)
    url = serializers.URLField(required=False, allow_null=True)
    name = serializers.CharField(required=False, allow_null=True, help_text="Under which it arrives.")
    content_type = serializers.CharField(required=False, allow_null=True, help_text="Required beside a URL.")
    content_id = serializers.CharField(
        required=False, allow_null=True, help_text="By which the HTML of a mail shows it: cid:NAME."
    )
    sha256 = serializers.CharField(required=False, allow_null=True, help_text="Refused where the file has another.")
    size = serializers.IntegerField(required=False, allow_null=True, help_text="Refused where the file has another.")


class MessageIn(serializers.Serializer[Any]):
    """A message as a service asks for it. What is null is taken as left out."""

    id = serializers.UUIDField(
        required=False, allow_null=True, help_text="A UUIDv7 minted by the client; made here if left out."
    )
    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField(
        max_length=2048, help_text="Phone +56912345678, e-mail address, chat id, URL: by the channel."
    )
    text = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    subject = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=998)
    html = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    template = serializers.CharField(required=False, allow_null=True, help_text="The name of a template, not text.")
    context = _object(required=False, allow_null=True, help_text="What the template's names stand for.")
    language = serializers.CharField(required=False, allow_null=True, help_text="Which language of the template.")
    attachments = AttachmentIn(
        many=True, required=False, allow_null=True, help_text="Files that go with it, where the provider takes some."
    )
    account = serializers.CharField(
        required=False, allow_null=True, help_text="The name of one of the service's accounts."
    )
    send_at = serializers.DateTimeField(required=False, allow_null=True, help_text="Not before; at once if left out.")
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Not after; the channel's own limit if left out."
    )
    priority = serializers.ChoiceField(choices=LANE_CHOICES, required=False, allow_null=True)
    ordering_key = serializers.CharField(
        required=False, allow_null=True, max_length=KEY_LIMIT, help_text="Messages of one key go in their order."
    )
    reference = serializers.CharField(
        required=False, allow_null=True, max_length=KEY_LIMIT, help_text="Your own id of it, for lists."
    )
    tags = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True, max_length=TAG_LIMIT)
    metadata = _object(required=False, allow_null=True, help_text="Yours; callbacks carry it.")
    options = _object(required=False, allow_null=True, help_text="The provider's own, see docs/reference/providers.md.")


class BatchRow(MessageIn):
    """A message in a batch, with its own idempotency key."""

    key = serializers.CharField(required=False, allow_null=True, max_length=KEY_LIMIT)


class BatchIn(serializers.Serializer[Any]):
    """Up to 10,000 messages."""

    id = serializers.UUIDField(
        required=False, allow_null=True, help_text="A UUIDv7; a further call with it adds to the same batch."
    )
    messages = BatchRow(many=True)


class Rejected(serializers.Serializer[Any]):
    """A row that was not taken; `index` counts the rows of this call from 0."""

    index = serializers.IntegerField()
    errors = serializers.DictField(child=_reasons())  # type: ignore[assignment]


class BatchOut(serializers.Serializer[Any]):
    """What became of a batch's rows. The first 10,000 rejected ones are told one by one."""

    id = serializers.UUIDField()
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = Rejected(many=True)
    rejected_count = serializers.IntegerField()


class BatchState(serializers.Serializer[Any]):
    """Where a batch's messages are."""

    id = serializers.UUIDField()
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = serializers.IntegerField()
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="Status -> messages.")
    finished = serializers.IntegerField(help_text="Messages that were handed over or are final.")
    created_at = serializers.DateTimeField()
    forecast_at = serializers.DateTimeField(allow_null=True, help_text="When the last will have been handed over.")


class ErrorOut(serializers.Serializer[Any]):
    """Why a message is not delivered."""

    code = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "class": serializers.ChoiceField(choices=[str(c) for c in ErrorClass])}


class MessageOut(serializers.Serializer[Any]):
    """A message as Chaski keeps it."""

    id = serializers.UUIDField()
    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField(help_text="As it was given.")
    recipient = serializers.CharField(help_text="Normalised.")
    text = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True)
    html = serializers.CharField(allow_blank=True)
    template = serializers.CharField(allow_null=True)
    context = _object()
    language = serializers.CharField(allow_blank=True)
    attachments = serializers.ListField(child=serializers.DictField())
    account = serializers.CharField()
    priority = serializers.ChoiceField(choices=LANE_CHOICES)
    ordering_key = serializers.CharField(allow_null=True)
    reference = serializers.CharField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())
    metadata = _object()
    options = _object()
    status = serializers.ChoiceField(choices=STATUS_CHOICES)
    final = serializers.BooleanField(help_text="It can no longer change by itself.")
    waiting_for = serializers.ChoiceField(choices=[str(word) for word in WaitingFor], allow_null=True)
    waiting_until = serializers.DateTimeField(allow_null=True)
    waiting_behind = serializers.UUIDField(allow_null=True, help_text="The message ahead of it in its order.")
    provider = serializers.CharField()
    provider_message_id = serializers.CharField(allow_null=True)
    error = ErrorOut(allow_null=True)
    attempt_count = serializers.IntegerField()
    in_doubt_count = serializers.IntegerField()
    batch_id = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField(allow_null=True)
    send_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField()
    sent_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    read_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    url = serializers.URLField(help_text="The admin page, for people.")


class AttemptOut(serializers.Serializer[Any]):
    """One hand-over to a provider."""

    at = serializers.DateTimeField()
    number = serializers.IntegerField()
    account = serializers.CharField(allow_blank=True)
    opened_at = serializers.DateTimeField()
    begun_at = serializers.DateTimeField(allow_null=True)
    written_at = serializers.DateTimeField(
        allow_null=True, help_text="When the request was handed to the network; null where it was not, or is not known."
    )
    finished_at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.CharField(allow_blank=True)
    code = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True)
    provider_message_id = serializers.CharField(allow_blank=True)
    task_id = serializers.CharField(allow_blank=True)
    worker = serializers.CharField(allow_blank=True)
    late = _object(allow_null=True, help_text="What a worker reported after its lease had ended.")


class ReceiptOut(serializers.Serializer[Any]):
    """What the provider told later."""

    at = serializers.DateTimeField(allow_null=True)
    kind = serializers.CharField()
    received_at = serializers.DateTimeField()
    applied_at = serializers.DateTimeField(allow_null=True)
    effect = serializers.CharField(allow_blank=True)
    code = serializers.CharField(allow_blank=True)
    detail = serializers.CharField(allow_blank=True)


class EventOut(serializers.Serializer[Any]):
    """One change in the message's life."""

    at = serializers.DateTimeField()
    sequence = serializers.IntegerField()
    status = serializers.ChoiceField(choices=STATUS_CHOICES)
    actor = serializers.CharField(allow_blank=True)
    attempt = serializers.IntegerField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)


class MessageDetail(MessageOut):
    """A message with its whole life."""

    attempts = AttemptOut(many=True)
    receipts = ReceiptOut(many=True)
    events = EventOut(many=True)


class MessagePage(serializers.Serializer[Any]):
    """A page of messages, newest first; `next` is the cursor of the following one."""

    results = MessageOut(many=True)
    next = serializers.CharField(allow_null=True)


class ProblemOut(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    errors = serializers.DictField(child=_reasons())  # type: ignore[assignment]
    request_id = serializers.CharField()


def answers(good: dict[int, Any], *bad: int) -> dict[Any, Any]:
    """The answers of a call for OpenAPI: the good ones, and problems with the statuses that every call can give added."""
    always = (401, 406, 500, 503)
    return {**good, **{(status, "application/problem+json"): ProblemOut for status in sorted({*bad, *always})}}
