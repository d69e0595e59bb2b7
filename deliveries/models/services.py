"""Services and their API keys. Written by `manage.py service` and the admin; read by the API's authentication."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Service(models.Model):
    """An application that sends through Chaski: it owns API keys, accounts, its callback endpoint and its messages."""

    name = models.SlugField(max_length=64, unique=True)
    test = models.BooleanField(
        default=False, help_text="Messages of a test service reach the sandbox, never a real provider."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "service"
        constraints = [models.CheckConstraint(condition=~models.Q(name=""), name="service_has_a_name")]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """One bearer key of a service: found by ``key_id``, proved by the SHA-256 of its secret part."""

    key_id = models.CharField(max_length=32, unique=True)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="api_keys")
    secret_sha256 = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        constraints = [models.CheckConstraint(condition=~models.Q(key_id=""), name="api_key_has_an_id")]

    def __str__(self) -> str:
        return self.key_id
