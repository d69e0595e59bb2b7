"""Which callbacks told a service about one message. Called by the message's page."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from chaski.vocabulary import Status
from deliveries.models import Message

#: The newest are enough for a page, and a message that is corrected for ever has ever more of them.
_TOLD = """
SELECT c.id, c.status FROM (
    SELECT DISTINCT callback_id FROM told WHERE message_id = %(id)s ORDER BY callback_id DESC LIMIT 50) t
CROSS JOIN LATERAL (SELECT id, status FROM message WHERE id = t.callback_id LIMIT 1) c
ORDER BY c.id
"""
_UNTOLD = "SELECT count(*) FROM untold WHERE message_id = %(id)s"


@dataclass(frozen=True, slots=True)
class Told:
    """The callbacks about a message with their statuses, and how many of its events still wait to be told."""

    callbacks: tuple[tuple[UUID, Status], ...]
    waiting: int


def told(message: Message) -> Told:
    """What the service of ``message`` was told about it: two queries."""
    with connection.cursor() as cursor:
        cursor.execute(_TOLD, {"id": message.pk})
        callbacks = tuple((row[0], Status(row[1])) for row in cursor.fetchall())
        cursor.execute(_UNTOLD, {"id": message.pk})
        return Told(callbacks, cursor.fetchone()[0])
