"""Files that services upload and messages refer to. Written by ``deliveries.files``."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from deliveries.models.services import Service


class File(models.Model):
    """What a service uploaded once; any number of its messages may carry it. Never changed.

    Kept until ``kept_until``, which every message that names it moves behind its own end.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="+", db_index=False)
    sha256 = models.BinaryField(max_length=32)
    size = models.IntegerField(help_text="In bytes.")
    name = models.CharField(max_length=255)
    content_type = models.CharField(max_length=127)
    content = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    kept_until = models.DateTimeField()

    class Meta:
        db_table = "file"
        indexes = [models.Index(fields=["kept_until"], name="file_kept_until")]
        constraints = [
            models.UniqueConstraint(fields=["service", "sha256", "name", "content_type"], name="file_once_per_service")
        ]

    def __str__(self) -> str:
        return self.name


class KeptMedia(models.Model):
    """What a vendor calls one of our files at one account. Written by ``deliveries.delivery.media_rows``.

    No foreign keys: the release before removes files and knows nothing of this table.
    """

    pk = models.CompositePrimaryKey("file_id", "account_id", "place")
    file_id = models.UUIDField()
    account_id = models.IntegerField()
    place = models.TextField(help_text="What else it depends on: the host, the number or bot, the kind of file.")
    media_id = models.TextField(help_text="Empty while somebody uploads the file.")
    kept_at = models.DateTimeField()
    kept_until = models.DateTimeField(help_text="Until then the vendor surely has it, or the upload is under way.")

    class Meta:
        db_table = "kept_media"

    def __str__(self) -> str:
        return f"file {self.file_id} at account {self.account_id}"
