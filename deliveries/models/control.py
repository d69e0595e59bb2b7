"""What operators set and what the processes report: pauses, suppressions, the audit, heartbeats."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliveries.models.services import Service


class PauseScope(models.TextChoices):
    """What a pause holds."""

    ALL = "all", "everything"
    CHANNEL = "channel", "channel"
    ACCOUNT = "account", "account"
    SERVICE = "service", "service"
    BATCH = "batch", "batch"


class Pause(models.Model):
    """The kill switch: nothing that it covers is claimed; acceptance goes on."""

    scope = models.CharField(max_length=16, choices=PauseScope.choices)
    value = models.CharField(max_length=64, blank=True, default="")
    actor = models.CharField(max_length=150, default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "pause"
        constraints = [models.UniqueConstraint(fields=["scope", "value"], name="pause_is_set_once")]

    def __str__(self) -> str:
        return f"{self.scope} {self.value}"


class Suppression(models.Model):
    """A recipient that must not be written to on a channel, for one service or (service null) for all."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, null=True, blank=True, help_text="Empty: all.")
    channel = models.CharField(max_length=32)
    recipient = models.TextField()
    reason = models.CharField(max_length=500)
    actor = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "suppression"
        constraints = [
            models.UniqueConstraint(
                fields=["channel", "recipient", "service"], nulls_distinct=False, name="suppression_is_set_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.reason}"


class Audit(models.Model):
    """Who did what to which row, and why. Append only."""

    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=32)
    target = models.CharField(max_length=150)
    reason = models.TextField(default="")
    detail = models.JSONField(default=dict)

    class Meta:
        db_table = "audit"
        verbose_name_plural = "audit"
        indexes = [models.Index(fields=["target"], name="audit_target")]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"


class Heartbeat(models.Model):
    """When a process was last seen, and when a worker last claimed."""

    name = models.CharField(max_length=150, primary_key=True)
    kind = models.CharField(max_length=16)
    seen_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    queues = models.TextField(default="", db_default="", help_text="What a worker takes from, comma-separated.")

    class Meta:
        db_table = "heartbeat"

    def __str__(self) -> str:
        return self.name


class Watch(models.Model):
    """One row: when a relay last saw the database take a write, and which start of the server that was."""

    id = models.BigIntegerField(primary_key=True)
    seen_at = models.DateTimeField()
    server_started_at = models.DateTimeField()
    prolonged_at = models.DateTimeField(null=True, help_text="When leases were last prolonged after an outage.")

    class Meta:
        db_table = "watch"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="watch_is_one_row")]

    def __str__(self) -> str:
        return f"seen {self.seen_at}"


class Lineage(models.Model):
    """Which database this is, how far it has come, and since when it is held because it was restored. One row."""

    one = models.BooleanField(primary_key=True, default=True)
    id = models.UUIDField()
    identity = models.TextField()
    counter = models.BigIntegerField()
    advanced_at = models.DateTimeField()
    held_at = models.DateTimeField(null=True)
    held_reason = models.TextField(default="")
    begun_late = models.BooleanField(
        default=False, help_text="Made when messages were there already, and not every witness was heard since."
    )

    class Meta:
        db_table = "lineage"
        constraints = [models.CheckConstraint(condition=models.Q(one=True), name="lineage_is_one")]

    def __str__(self) -> str:
        return str(self.id)


class PeriodicSlot(models.Model):
    """One run of one periodic job: two beats, or one that fires late, do the work of a slot once."""

    pk = models.CompositePrimaryKey("job", "slot")
    job = models.CharField(max_length=64)
    slot = models.DateTimeField()

    class Meta:
        db_table = "periodic_slot"

    def __str__(self) -> str:
        return f"{self.job} {self.slot}"
