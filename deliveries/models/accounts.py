"""Accounts at providers, the routes to them, callback endpoints and templates.

Written by the commands and the admin; read by intake, routing and the delivery engine.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from deliveries.models.services import Service


class InDoubtPolicy(models.TextChoices):
    """What happens to a message whose answer never came."""

    RETRY = "retry", "send again, at most as often as the account allows"
    RECONCILE = "reconcile", "ask the provider whether it has the message, else wait for an operator"
    HOLD = "hold", "wait for an operator or a receipt"


class Account(models.Model):
    """One set of credentials and limits at a provider, owned by a service or shared (``service`` is null)."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    service = models.ForeignKey(
        Service, on_delete=models.PROTECT, null=True, blank=True, related_name="accounts", help_text="Empty: shared."
    )
    channel = models.CharField(max_length=32)
    provider = models.CharField(max_length=32)
    name = models.SlugField(max_length=64)
    options = models.JSONField(default=dict, blank=True)
    secrets = models.BinaryField(default=bytes, editable=False, help_text="Encrypted; written, never shown.")
    priority = models.SmallIntegerField(default=0, help_text="The lowest is used first.")
    in_doubt_policy = models.CharField(max_length=16, choices=InDoubtPolicy.choices, default=InDoubtPolicy.RETRY)
    blind_retries = models.SmallIntegerField(default=1, help_text="Repeats after an answer that never came.")
    stopped_at = models.DateTimeField(null=True, blank=True, editable=False)
    stopped_reason = models.CharField(max_length=600, default="", blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "account"
        constraints = [
            models.UniqueConstraint(
                fields=["service", "name"], nulls_distinct=False, name="account_name_is_unique_per_service"
            ),
            models.CheckConstraint(condition=models.Q(blind_retries__gte=0), name="account_blind_retries_not_negative"),
            models.CheckConstraint(
                condition=models.Q(in_doubt_policy__in=InDoubtPolicy.values), name="account_in_doubt_policy_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel}/{self.name}"


class Route(models.Model):
    """Which accounts a service uses on a channel, in order of ``position``; the weight shares among equals."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="routes")
    channel = models.CharField(max_length=32)
    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    weight = models.PositiveSmallIntegerField(default=1)
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        db_table = "route"
        constraints = [models.UniqueConstraint(fields=["service", "channel", "account"], name="route_is_unique")]

    def __str__(self) -> str:
        return f"{self.service_id}: {self.channel} -> {self.account_id}"


class Endpoint(models.Model):
    """Where a service is told its messages' events; ``account`` is the webhook account whose secret signs them."""

    service = models.OneToOneField(Service, on_delete=models.PROTECT, related_name="endpoint")
    url = models.URLField(max_length=2048)
    events = ArrayField(models.CharField(max_length=32), default=list, blank=True, help_text="Empty: all of them.")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, editable=False)
    active = models.BooleanField(default=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "endpoint"

    def __str__(self) -> str:
        return self.url


class Template(models.Model):
    """One version of a text with variables; never changed once written, a message pins the version."""

    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="templates")
    name = models.SlugField(max_length=64)
    channel = models.CharField(max_length=32)
    language = models.CharField(max_length=16, default="", blank=True)
    version = models.PositiveIntegerField()
    subject = models.TextField(default="", blank=True)
    text = models.TextField(default="", blank=True)
    html = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "template"
        constraints = [
            models.UniqueConstraint(
                fields=["service", "name", "channel", "language", "version"], name="template_version_is_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"
