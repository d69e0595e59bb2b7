"""The one model."""

from __future__ import annotations

from django.db import models


class Sms(models.Model):
    """One SMS."""

    to = models.CharField(max_length=32)
    text = models.TextField()
    status = models.CharField(max_length=16, default="queued", db_index=True)
    provider_id = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "sms"

    def __str__(self) -> str:
        return str(self.pk)
