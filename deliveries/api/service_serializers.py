"""The shapes of what a service sees of itself, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from channels.media import MEDIA
from deliveries.models.services import OrderThen


class Preview(serializers.Serializer[Any]):
    """What a message would say, and who would carry it."""

    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField()
    recipient = serializers.CharField()
    account = serializers.CharField()
    provider = serializers.CharField()
    send_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField()
    text = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True)
    html = serializers.CharField(allow_blank=True)
    template = serializers.CharField(allow_null=True)
    template_version = serializers.IntegerField(allow_null=True)
    last_reply_at = serializers.DateTimeField(
        allow_null=True,
        help_text="When the recipient last wrote to the account; null where we were not told, or services share the account.",
    )


class FileIn(serializers.Serializer[Any]):
    """A file in a form."""

    file = serializers.FileField()


class FileOut(serializers.Serializer[Any]):
    """A file that is kept. Given as it is, this is an attachment of a message."""

    id = serializers.UUIDField()
    sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="In bytes.")
    name = serializers.CharField()
    content_type = serializers.CharField()


class Bounds(serializers.Serializer[Any]):
    """How much one request may hold."""

    message_bytes = serializers.IntegerField()
    file_bytes = serializers.IntegerField()
    batch_rows = serializers.IntegerField()
    batch_bytes = serializers.IntegerField()
    stream_rows = serializers.IntegerField()


class Ordering(serializers.Serializer[Any]):
    """What becomes of messages behind a blocked one of their ordering key."""

    wait_seconds = serializers.IntegerField(allow_null=True, help_text="How long they wait; null: until it ends.")
    then = serializers.ChoiceField(
        choices=OrderThen.values, help_text="skip: it steps aside for the next; fail_rest: those behind it fail."
    )


class Usage(serializers.Serializer[Any]):
    """What the service used."""

    accepted_last_hour = serializers.IntegerField()
    unfinished = serializers.IntegerField()


class Me(serializers.Serializer[Any]):
    """The service that the key belongs to."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    test = serializers.BooleanField()
    limits = Bounds()
    ordering = Ordering()
    usage = Usage()


class SuppressionIn(serializers.Serializer[Any]):
    """A recipient that must not be written to."""

    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField()
    reason = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=500)


class SuppressionOut(serializers.Serializer[Any]):
    """A recipient that is not written to, normalised."""

    channel = serializers.ChoiceField(choices=list(MEDIA))
    to = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


class Group(serializers.Serializer[Any]):
    """The messages of one group."""

    name = serializers.CharField()
    messages = serializers.IntegerField()
    sent = serializers.IntegerField()
    delivered = serializers.IntegerField()
    failed = serializers.IntegerField()
    retried = serializers.IntegerField()
    in_doubt = serializers.IntegerField()
    doubted = serializers.IntegerField()
    p50_ms = serializers.IntegerField(allow_null=True)
    p99_ms = serializers.IntegerField(allow_null=True)
    success_rate = serializers.FloatField()


class Summary(serializers.Serializer[Any]):
    """Counts, rates and latencies."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    group_by = serializers.CharField()
    groups = Group(many=True)
