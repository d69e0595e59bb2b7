"""Services and their API keys. Written by `manage.py service` and the admin; read by the API's authentication."""

from __future__ import annotations

from datetime import timedelta

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now

#: Longer than any message waits on any channel.
LONGEST_ORDER_WAIT = timedelta(days=30)


class OrderThen(models.TextChoices):
    """What happens once a blocked head has been waited for."""

    SKIP = "skip", "it steps aside, and the next goes out before it"
    FAIL_REST = "fail_rest", "what waits behind it fails"


class Service(models.Model):
    """An application that sends through Chaski: it owns API keys, accounts, its callback endpoint and its messages.

    ``order_wait_seconds`` and ``order_then`` are its rule for a blocked head (``deliveries.delivery.blocked_heads``).
    """

    name = models.SlugField(max_length=64, unique=True)
    test = models.BooleanField(
        default=False, help_text="Messages of a test service reach the sandbox, never a real provider."
    )
    order_wait_seconds = models.IntegerField(
        "seconds to wait for a blocked head",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(int(LONGEST_ORDER_WAIT.total_seconds()))],
        help_text="How long a message waits for one before it with its ordering key that cannot go. Empty: until that ends.",
    )
    order_then = models.CharField(
        "and then",
        max_length=16,
        choices=OrderThen.choices,
        default=OrderThen.SKIP,
        db_default=OrderThen.SKIP,
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
