"""The one model."""

from __future__ import annotations

from django.db import models


class Sms(models.Model):
    """One SMS."""

    to = models.CharField(max_length=32)
    text = models.TextField()
    reference = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "sms"

    def __str__(self) -> str:
        return str(self.pk)
