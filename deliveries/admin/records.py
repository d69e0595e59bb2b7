"""What is only read: batches with their counts, receipts, parked tasks, the audit, the processes' signs of life."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from deliveries.admin.base import KeysetAdmin, ReadOnly, shown, timed
from deliveries.admin.showing import plain
from deliveries.models import (
    Audit,
    Batch,
    BreakerEvent,
    Heartbeat,
    Message,
    Parked,
    Pending,
    Receipt,
    Reply,
    UnmappedCode,
)
from deliveries.models.evidence import ReceiptEffect


def message_link(pk: Any) -> SafeString | str:
    """The page of a message; empty for none."""
    if not pk:
        return ""
    return format_html(
        '<a class="chaski-link" href="{}">{}</a>', reverse("admin:deliveries_message_change", args=[pk]), pk
    )


@admin.register(Batch)
class BatchAdmin(KeysetAdmin, ReadOnly):
    """Batches; the page of one counts its messages."""

    list_display = ("id", "service", "accepted", "duplicates", "rejected", timed("created_at", "begun"))
    list_select_related = ("service",)
    fields = ("id", "service", timed("created_at", "begun"), "accepted", "duplicates", "rejected", "counts", "messages")
    readonly_fields = (fields[2], "counts", "messages")

    @admin.display(description="where its messages are")
    def counts(self, batch: Batch) -> SafeString | str:
        """Messages by status, of which those under way are told apart."""
        by_status = (
            Message.objects.filter(batch=batch.pk).values_list("status").annotate(Count("pk")).order_by("status")
        )
        found: dict[str, int] = dict(by_status)
        sending = Pending.objects.filter(batch_id=batch.pk, lease_until__isnull=False).count()
        if sending and "queued" in found:
            found = {**found, "queued": found["queued"] - sending, "sending": sending}
        return (
            format_html_join(", ", "{} {}", ((f"{n:,}", name.replace("_", " ")) for name, n in found.items())) or "none"
        )

    @admin.display(description="messages")
    def messages(self, batch: Batch) -> SafeString:
        """The list of its messages."""
        href = f"{reverse('admin:deliveries_message_changelist')}?{urlencode({'q': str(batch.pk)})}"
        return format_html('<a class="chaski-link" href="{}">the messages of this batch</a>', href)


@admin.register(Receipt)
class ReceiptAdmin(KeysetAdmin, ReadOnly):
    """What providers told us later."""

    list_display = (
        "id",
        timed("received_at", "received"),
        "kind",
        "account",
        "message",
        "effect_shown",
        shown("code", "code", 40),
    )
    list_select_related = ("account",)
    fields = (
        "account",
        "message",
        shown("kind", "kind"),
        shown("event_id", "provider's event", 300),
        shown("provider_message_id", "provider's id", 300),
        timed("at", "the provider's own time"),
        timed("received_at", "received"),
        timed("applied_at", "applied"),
        "effect_shown",
        shown("code", "code", 300),
        shown("detail", "detail", 1000),
    )
    readonly_fields = fields

    @admin.display(description="message")
    def message(self, receipt: Receipt) -> SafeString | str:
        """The message it is about, if it matched one."""
        return message_link(receipt.message_id)

    @admin.display(description="what it did")
    def effect_shown(self, receipt: Receipt) -> str:
        """In words."""
        known = dict(ReceiptEffect.choices)
        return str(known.get(receipt.effect, "waits to be applied"))


@admin.register(Reply)
class ReplyAdmin(KeysetAdmin, ReadOnly):
    """That people wrote back, and to whom it was told. What they wrote is for the service that it belongs to."""

    list_display = (
        "id",
        timed("received_at", "received"),
        "account",
        shown("sender", "from", 40),
        "wish",
        "message",
        timed("told_at", "told"),
    )
    list_select_related = ("account",)
    fields = (
        "account",
        shown("sender", "from", 300),
        "message",
        "wish",
        timed("at", "the provider's own time"),
        timed("received_at", "received"),
        timed("applied_at", "applied"),
        timed("told_at", "told to its service"),
        "callback",
    )
    readonly_fields = fields

    @admin.display(description="message")
    def message(self, reply: Reply) -> SafeString | str:
        """The one that was answered, or the last one that went to this person."""
        return message_link(reply.message_id)

    @admin.display(description="callback")
    def callback(self, reply: Reply) -> SafeString | str:
        """The message that told it."""
        return message_link(reply.callback_id)


@admin.register(UnmappedCode)
class UnmappedCodeAdmin(KeysetAdmin, ReadOnly):
    """Codes that no table of ours knows: each was classed by its HTTP status, and belongs into the provider's file."""

    list_display = (
        "id",
        shown("provider", "provider"),
        shown("code", "code", 64),
        "times",
        shown("error_class", "taken for"),
        timed("last_at", "last came"),
    )
    fields = (
        shown("provider", "provider"),
        shown("code", "code", 64),
        "times",
        shown("error_class", "taken for"),
        shown("detail", "the provider's words", 600),
        "message",
        timed("first_at", "first came"),
        timed("last_at", "last came"),
    )
    readonly_fields = fields

    @admin.display(description="last met by")
    def message(self, found: UnmappedCode) -> SafeString | str:
        """The message that met it last."""
        return message_link(found.message_id)


@admin.register(Parked)
class ParkedAdmin(KeysetAdmin, ReadOnly):
    """Tasks that no worker here could take. `manage.py parked` publishes one again or discards it."""

    list_display = (
        "id",
        "reason",
        shown("name", "task"),
        shown("queue", "queue"),
        "times",
        timed("first_at", "first came"),
        timed("last_at", "last came"),
    )
    fields = (
        "reason",
        shown("detail", "what about it", 200),
        shown("name", "task", 200),
        shown("queue", "queue", 200),
        shown("task_id", "id of the last one", 200),
        "times",
        timed("first_at", "first came"),
        timed("last_at", "last came"),
        shown("payload", "body", 8_000),
        "payload_chars",
    )
    readonly_fields = fields


@admin.register(BreakerEvent)
class BreakerEventAdmin(KeysetAdmin, ReadOnly):
    """When accounts were given up for a time because their providers failed, and when they came back."""

    list_display = ("id", timed("at", "at"), "account", "change", shown("detail", "about it", 200))
    list_select_related = ("account",)
    fields = (timed("at", "at"), "account", "change", shown("detail", "about it", 600))
    readonly_fields = fields


@admin.register(Audit)
class AuditAdmin(KeysetAdmin, ReadOnly):
    """Who did what to which row, and why."""

    list_display = (
        "id",
        timed("at", "at"),
        shown("actor", "who"),
        "action",
        shown("target", "to what"),
        shown("reason", "why", 80),
    )
    fields = (timed("at", "at"), shown("actor", "who", 150), "action", shown("target", "to what", 150), "why", "more")
    readonly_fields = fields
    search_fields = ("target",)
    search_help_text = "Exactly: message id, or service:7"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """By the whole target, which has an index."""
        term = search_term.strip().replace("\x00", "")
        return (queryset.filter(target=term) if term else queryset), False

    @admin.display(description="why")
    def why(self, audit: Audit) -> str:
        """The reason as it was given."""
        return plain(audit.reason)

    @admin.display(description="more")
    def more(self, audit: Audit) -> str:
        """What else was written down."""
        return plain(audit.detail) if audit.detail else ""


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnly):
    """Which workers and relays run."""

    list_display = ("name", "kind", timed("seen_at", "seen"), timed("claimed_at", "last claim"), "queues")
    ordering = ("-seen_at",)
