"""The message, its place in the queue, and the records of its acceptance.

``Message``, ``Acceptance`` and ``Pending`` are inserted by ``intake`` in one statement. Only ``lifecycle`` assigns a
status. ``Pending`` is changed by the stages of ``delivery``. The tables that grow with history are partitioned by
month on the UUIDv7 id; the migration holds their SQL.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from chaski.vocabulary import Lane, Status
from deliveries.models.accounts import Account
from deliveries.models.services import Service

#: The lanes as the queue table stores them: a lower number is more urgent.
LANES = (Lane.URGENT, Lane.NORMAL, Lane.BULK)


class Origin(models.TextChoices):
    """Who asked for the message."""

    API = "api", "API"
    BATCH = "batch", "batch"
    SHELL = "shell", "shell"
    CALLBACK = "callback", "callback"
    TEST = "test", "account test"


class Batch(models.Model):
    """Messages accepted in one call or one file."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    service = models.ForeignKey(Service, on_delete=models.PROTECT)
    accepted = models.IntegerField(default=0)
    duplicates = models.IntegerField(default=0)
    rejected = models.IntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "batch"
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return str(self.id)


class Message(models.Model):
    """One content to one recipient over one channel.

    Written once at intake and once more when it is settled. While a worker holds a lease on it the row still says
    ``queued``: ``sending`` is the lease itself, seen in ``Pending`` (docs/adr/0002-sending-is-a-lease.md).
    """

    id = models.UUIDField(primary_key=True)
    service = models.ForeignKey(Service, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    account = models.ForeignKey(Account, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    batch = models.ForeignKey(Batch, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True)
    channel = models.TextField()
    provider = models.TextField()
    lane = models.SmallIntegerField()
    status = models.TextField()
    origin = models.TextField()
    recipient = models.TextField(help_text="Normalised.")
    to = models.TextField(help_text="As it was given.")
    reference = models.TextField(default="")
    ordering_key = models.TextField(default="")
    idempotency_key = models.TextField(default="")
    request_id = models.TextField(default="")
    tags = ArrayField(models.TextField(), default=list)
    content = models.JSONField(default=dict)
    options = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)
    event_sequence = models.IntegerField(default=1)
    attempt_count = models.IntegerField(default=0)
    in_doubt_count = models.IntegerField(default=0)
    redelivery_count = models.IntegerField(default=0)
    provider_message_id = models.TextField(default="")
    error_class = models.TextField(default="")
    error_code = models.TextField(default="")
    error_detail = models.TextField(default="")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    send_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "message"
        permissions = [
            ("view_message_body", "Can read what a message says"),
            ("act_on_message", "Can redeliver, cancel and resolve messages"),
        ]
        indexes = [
            models.Index(fields=["service", "channel", "status", "id"], name="message_list"),
            models.Index(fields=["recipient", "id"], name="message_recipient"),
            models.Index(
                fields=["service", "reference", "id"], condition=~models.Q(reference=""), name="message_reference"
            ),
            models.Index(fields=["batch", "id"], condition=models.Q(batch__isnull=False), name="message_batch"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=[str(s) for s in Status]), name="message_status_is_known"
            ),
            models.CheckConstraint(condition=models.Q(lane__range=(0, 2)), name="message_lane_is_known"),
            models.CheckConstraint(condition=~models.Q(recipient=""), name="message_has_a_recipient"),
            models.CheckConstraint(
                condition=models.Q(expires_at__gt=models.F("created_at")), name="message_expires_after_it_begins"
            ),
            models.CheckConstraint(
                condition=models.Q(event_sequence__gte=1)
                & models.Q(attempt_count__gte=0)
                & models.Q(in_doubt_count__gte=0),
                name="message_counts_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def parts(self) -> dict[str, Any]:
        """``content`` by its parts; none where a person with SQL wrote something else than intake does."""
        return self.content if isinstance(self.content, dict) else {}


class Pending(models.Model):
    """The narrow row that makes a message due: the queue. One per unfinished message, deleted when it is final.

    ``blocked`` rows are invisible to the claim: they wait for a predecessor, a receipt or an operator. The lease
    columns are in no index, so that a claim is a heap-only update.
    """

    message = models.OneToOneField(Message, on_delete=models.DO_NOTHING, db_constraint=False, primary_key=True)
    channel = models.TextField()
    lane = models.SmallIntegerField()
    service_id = models.IntegerField()
    account_id = models.IntegerField()
    batch_id = models.UUIDField(null=True)
    due_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    blocked = models.BooleanField(default=False)
    waiting_for = models.TextField(default="")
    ordering_key = models.TextField(default="")
    position = models.BigIntegerField(null=True)
    blocking_at = models.DateTimeField(
        null=True, help_text="Since when it is known to be a blocked head that others wait for."
    )
    pinned = models.BooleanField(
        default=True, db_default=True, help_text="It waits for its account, also where another could stand in."
    )
    lease_until = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)
    solitary = models.BooleanField(
        default=False, help_text="Its lease is the only one of a twofold suspect in its process."
    )
    suspicion = models.IntegerField(
        default=0, help_text="Workers that vanished with it in flight; from the second on it is sent alone."
    )
    attempt_count = models.IntegerField(default=0, help_text="Attempts opened, whatever became of them.")
    tries = models.IntegerField(default=0, help_text="Attempts that count against the retry policy.")
    crash_count = models.IntegerField(default=0)
    blind_count = models.IntegerField(default=0, help_text="Repeats after an answer that never came.")

    class Meta:
        db_table = "pending"
        verbose_name_plural = "pending"
        indexes = [
            models.Index(
                fields=["channel", "lane", "service_id", "due_at"],
                condition=models.Q(blocked=False),
                name="pending_turn",
            ),
            # What the claim goes by. The one above serves the relay's look at what is due, and the release before.
            models.Index(
                fields=["channel", "lane", "service_id", "account_id", "due_at"],
                condition=models.Q(blocked=False),
                name="pending_share",
            ),
            models.Index(
                fields=["channel", "lane", "due_at"], condition=models.Q(suspicion__gte=2), name="pending_suspect"
            ),
            models.Index(
                fields=["service_id", "ordering_key", "position"],
                condition=~models.Q(ordering_key=""),
                name="pending_order",
            ),
            models.Index(fields=["expires_at"], name="pending_expiry"),
            models.Index(fields=["batch_id"], condition=models.Q(batch_id__isnull=False), name="pending_batch"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(lease_until__isnull=True, lease_token__isnull=True)
                | models.Q(lease_until__isnull=False, lease_token__isnull=False),
                name="pending_lease_has_its_token",
            ),
            models.CheckConstraint(
                condition=models.Q(ordering_key="") | models.Q(position__isnull=False),
                name="pending_order_has_a_position",
            ),
        ]

    def __str__(self) -> str:
        return str(self.message_id)


class Acceptance(models.Model):
    """The ledger's other side: written in the accepting transaction, never changed."""

    message_id = models.UUIDField(primary_key=True)
    service_id = models.IntegerField()
    origin = models.TextField()
    accepted_at = models.DateTimeField()

    class Meta:
        db_table = "acceptance"
        indexes = [models.Index(fields=["accepted_at"], name="acceptance_hour")]

    def __str__(self) -> str:
        return str(self.message_id)


class Idempotency(models.Model):
    """(service, key) -> message. Its own unpartitioned table, so that one key can never make two messages."""

    pk = models.CompositePrimaryKey("service_id", "key")
    service_id = models.IntegerField()
    key = models.TextField()
    message_id = models.UUIDField()
    fingerprint = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "idempotency"
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return self.key


class Untold(models.Model):
    """An event that its service asked for and was not told yet. Deleted by the transaction that makes its callback."""

    pk = models.CompositePrimaryKey("message_id", "sequence")
    message_id = models.UUIDField()
    sequence = models.IntegerField()
    service_id = models.IntegerField()

    class Meta:
        db_table = "untold"
        indexes = [models.Index(fields=["service_id"], name="untold_service")]

    def __str__(self) -> str:
        return f"{self.message_id}#{self.sequence}"


class Told(models.Model):
    """An event that its service was told, and by which callback. Written by the transaction that makes the callback."""

    pk = models.CompositePrimaryKey("message_id", "sequence")
    message_id = models.UUIDField()
    sequence = models.IntegerField()
    service_id = models.IntegerField()
    callback_id = models.UUIDField()

    class Meta:
        db_table = "told"
        verbose_name_plural = "told"

    def __str__(self) -> str:
        return f"{self.message_id}#{self.sequence}"
