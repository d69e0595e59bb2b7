"""Circuit breakers of accounts: those that are open, and what happened to them. Written by the delivery engine's SQL."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from deliveries.models.accounts import Account


class BreakerChange(models.TextChoices):
    """What happened to a breaker."""

    OPENED = "opened", "opened: most calls failed"
    PROBED = "probed", "still open: one message was tried, and failed"
    CLOSED = "closed", "closed: the provider takes messages again"


class Breaker(models.Model):
    """An open breaker: nothing is sent through its account but one message at ``probe_at``. No row: closed."""

    account_id = models.IntegerField(primary_key=True)
    opened_at = models.DateTimeField(db_default=Now())
    probe_at = models.DateTimeField(help_text="When one message is tried.")
    probes = models.IntegerField(db_default=0, default=0)

    class Meta:
        db_table = "breaker"

    def __str__(self) -> str:
        return f"account {self.account_id} until {self.probe_at}"


class BreakerEvent(models.Model):
    """One change of an account's breaker. Kept for 90 days."""

    account = models.ForeignKey(
        Account, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    at = models.DateTimeField(db_default=Now())
    change = models.CharField(max_length=16, choices=BreakerChange.choices)
    detail = models.TextField(db_default="", default="")

    class Meta:
        db_table = "breaker_event"
        verbose_name = "breaker change"
        indexes = [models.Index(fields=["account", "at"], name="breaker_event_story")]

    def __str__(self) -> str:
        return f"account {self.account_id} {self.change}"
