"""What happened: attempts, events and receipts. Written by delivery, lifecycle and receipts; never changed afterwards."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliveries.models.accounts import Account


class Attempt(models.Model):
    """One hand-over of a message to a provider: opened at the claim, begun before the call, closed after it."""

    pk = models.CompositePrimaryKey("message_id", "number")
    message_id = models.UUIDField()
    number = models.IntegerField()
    token = models.UUIDField()
    account_id = models.IntegerField()
    worker = models.TextField()
    task_id = models.TextField()
    opened_at = models.DateTimeField()
    begun_at = models.DateTimeField(null=True)
    written_at = models.DateTimeField(
        null=True,
        help_text="When its request was handed to the network; empty where none was, or the provider does not tell.",
    )
    finished_at = models.DateTimeField(null=True)
    outcome = models.TextField(default="", help_text="accepted, an error class, abandoned, or empty while open.")
    code = models.TextField(default="")
    detail = models.TextField(default="")
    provider_message_id = models.TextField(default="")
    late = models.JSONField(null=True, help_text="What a fenced writer reported after its lease had ended.")

    class Meta:
        db_table = "attempt"
        indexes = [
            models.Index(
                fields=["provider_message_id"],
                condition=~models.Q(provider_message_id=""),
                name="attempt_provider_message",
            ),
            # What is under way: the sweep looks here, for leases are in no index.
            models.Index(fields=["message_id"], condition=models.Q(finished_at__isnull=True), name="attempt_open"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(number__gte=1), name="attempt_number_from_one"),
            models.CheckConstraint(
                condition=models.Q(outcome="") | models.Q(finished_at__isnull=False),
                name="attempt_outcome_has_its_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message_id}#{self.number}"


class Inquiry(models.Model):
    """Asking a provider whether it has a message in doubt. One per held message, deleted when that is settled.

    It has a lease of its own and is no attempt: an ask changes nothing at the provider and may be repeated.
    """

    message_id = models.UUIDField(primary_key=True)
    number = models.IntegerField(help_text="The attempt in doubt.")
    account_id = models.IntegerField()
    since = models.DateTimeField(help_text="Before the first request that may have arrived.")
    due_at = models.DateTimeField(null=True, help_text="When to ask; empty: no more, an operator decides.")
    asked = models.IntegerField(default=0)
    asked_at = models.DateTimeField(null=True)
    said = models.TextField(default="", help_text="Why the last answer did not settle it.")
    lease_until = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)

    class Meta:
        db_table = "inquiry"
        verbose_name_plural = "inquiries"
        indexes = [models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="inquiry_due")]

    def __str__(self) -> str:
        return f"{self.message_id}#{self.number}"


class Event(models.Model):
    """One change in a message's life, numbered without gaps from 1."""

    pk = models.CompositePrimaryKey("message_id", "sequence")
    message_id = models.UUIDField()
    sequence = models.IntegerField()
    service_id = models.IntegerField()
    status = models.TextField()
    at = models.DateTimeField()
    actor = models.TextField(default="")
    attempt = models.IntegerField(null=True)
    reason = models.TextField(default="")

    class Meta:
        db_table = "event"
        constraints = [
            models.CheckConstraint(condition=models.Q(sequence__gte=1), name="event_sequence_from_one"),
        ]

    def __str__(self) -> str:
        return f"{self.message_id}#{self.sequence} {self.status}"


class Reroute(models.Model):
    """A message that waited for an account which was down went to another one. Kept for 90 days."""

    message_id = models.UUIDField()
    at = models.DateTimeField(db_default=Now())
    from_account_id = models.IntegerField()
    to_account_id = models.IntegerField()
    reason = models.TextField()

    class Meta:
        db_table = "reroute"
        indexes = [
            models.Index(fields=["message_id"], name="reroute_message"),
            models.Index(fields=["at"], name="reroute_age"),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} to {self.to_account_id}"


class UnmappedCode(models.Model):
    """A vendor's code that the provider's table does not know. One row per code, counted."""

    provider = models.TextField()
    code = models.TextField()
    error_class = models.TextField(help_text="What it was taken for, by the HTTP status.")
    detail = models.TextField(default="", help_text="The vendor's words, of the last time.")
    message_id = models.UUIDField(help_text="The message that met it last.")
    times = models.BigIntegerField(default=1)
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "unmapped_code"
        constraints = [models.UniqueConstraint(fields=["provider", "code"], name="unmapped_code_is_kept_once")]

    def __str__(self) -> str:
        return f"{self.provider} {self.code}"


class ReceiptEffect(models.TextChoices):
    """What a receipt did to its message."""

    MOVED = "moved", "moved the message"
    KEPT = "kept", "said nothing new"
    CONTRADICTION = "contradiction", "contradicts what is known"
    UNMATCHED = "unmatched", "belongs to no message"


class Receipt(models.Model):
    """What a provider told us later. One row per (account, provider event), whatever it did."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    event_id = models.TextField()
    kind = models.TextField()
    message_id = models.UUIDField(null=True)
    provider_message_id = models.TextField(default="")
    at = models.DateTimeField(null=True)
    code = models.TextField(default="")
    detail = models.TextField(default="")
    received_at = models.DateTimeField(db_default=Now())
    look_at = models.DateTimeField(db_default=Now(), help_text="When to look for its message again.")
    applied_at = models.DateTimeField(null=True)
    effect = models.TextField(default="")

    class Meta:
        db_table = "receipt"
        constraints = [models.UniqueConstraint(fields=["account", "event_id"], name="receipt_is_kept_once")]
        indexes = [
            models.Index(fields=["look_at"], condition=models.Q(applied_at__isnull=True), name="receipt_waiting"),
            models.Index(fields=["message_id"], condition=models.Q(message_id__isnull=False), name="receipt_message"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.provider_message_id}"
