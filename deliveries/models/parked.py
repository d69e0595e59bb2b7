"""What lay on the broker and no worker here could take as it was. Written by ``deliveries.parking``."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Reason(models.TextChoices):
    """Why a task was parked."""

    UNKNOWN_TASK = "unknown_task", "there is no task of this name"
    UNFIT_ARGUMENTS = "unfit_arguments", "the task does not take these arguments"
    UNREADABLE = "unreadable", "it cannot be read"
    UNKNOWN_VERSION = "unknown_version", "its version is newer; taken as a bare bell"
    EXTRA_ARGUMENTS = "extra_arguments", "it has arguments that are not known; done without them"


#: The task was done all the same: the row is a note, counted by name, and nothing is left to do.
NOTES = (Reason.UNKNOWN_VERSION, Reason.EXTRA_ARGUMENTS)


class Parked(models.Model):
    """A task kept aside, once however often it comes. The same payload counts on the same row."""

    fingerprint = models.CharField(max_length=64, unique=True, editable=False)
    queue = models.TextField()
    name = models.TextField(default="", db_default="")
    task_id = models.TextField(default="", db_default="", help_text="Of the last one.")
    reason = models.CharField(max_length=32, choices=Reason.choices)
    detail = models.TextField(default="", db_default="")
    payload = models.TextField(default="", db_default="", help_text="The body as it came, cut where it is long.")
    payload_chars = models.IntegerField(default=0, db_default=0, help_text="How long the whole body was.")
    times = models.IntegerField(default=1, db_default=1)
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "parked"
        verbose_name = "parked task"

    def __str__(self) -> str:
        return f"{self.reason} {self.name}"

    @property
    def whole(self) -> bool:
        """Is the payload here all of it?"""
        return len(self.payload) == self.payload_chars
