"""What people wrote back, and when they last did. Written by ``deliveries.replies``."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from deliveries.models.accounts import Account


class ReplyWish(models.TextChoices):
    """What one word of a person asked for."""

    NONE = "", "nothing by a word of its own"
    STOP = "stop", "to be left alone"
    START = "start", "to be written to again"


class Reply(models.Model):
    """One message of a person to an account, kept once however often the vendor reports it.

    ``service_id`` and ``message_id`` say whose conversation it belongs to; empty where nobody wrote to that person before.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    event_id = models.TextField()
    channel = models.TextField()
    sender = models.TextField(help_text="Normalised as a recipient of the channel, as given where that is impossible.")
    name = models.TextField(default="")
    text = models.TextField(default="")
    files = ArrayField(models.TextField(), default=list)
    answers = models.TextField(default="", help_text="The vendor's id of the message that is answered.")
    at = models.DateTimeField(null=True, help_text="By the vendor's clock.")
    received_at = models.DateTimeField(db_default=Now())
    applied_at = models.DateTimeField(null=True)
    wish = models.TextField(default="", choices=ReplyWish.choices)
    service_id = models.IntegerField(null=True)
    message_id = models.UUIDField(null=True)
    told_at = models.DateTimeField(null=True, help_text="When its callback was made, or found to be wanted by nobody.")
    callback_id = models.UUIDField(null=True)

    class Meta:
        db_table = "reply"
        verbose_name_plural = "replies"
        constraints = [models.UniqueConstraint(fields=["account", "event_id"], name="reply_is_kept_once")]
        indexes = [
            models.Index(fields=["id"], condition=models.Q(applied_at__isnull=True), name="reply_waiting"),
            models.Index(
                fields=["service_id", "id"],
                condition=models.Q(applied_at__isnull=False, told_at__isnull=True, service_id__isnull=False),
                name="reply_untold",
            ),
            models.Index(fields=["message_id"], condition=models.Q(message_id__isnull=False), name="reply_message"),
            models.Index(fields=["sender", "id"], name="reply_sender"),
            models.Index(fields=["received_at"], name="reply_age"),
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.event_id}"


class Contact(models.Model):
    """When a person last wrote to an account: vendors of chats let us write freely for a time after that."""

    pk = models.CompositePrimaryKey("account_id", "person")
    account_id = models.IntegerField()
    person = models.TextField()
    replied_at = models.DateTimeField()

    class Meta:
        db_table = "contact"

    def __str__(self) -> str:
        return f"account {self.account_id}"
