"""Which callbacks told a service about one message. Called by the message's page.

A callback carries up to fifty events and no table says which, so the callbacks that the service was sent in the minute
after each event are read; a bounded number of them, by the index of the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from chaski.vocabulary import Status
from deliveries.models import Message

_TOLD = """
SELECT DISTINCT c.id, c.status FROM (
    SELECT at FROM event WHERE message_id = %(id)s ORDER BY sequence DESC LIMIT 20) e
CROSS JOIN unnest(%(statuses)s::text[]) AS s(status) CROSS JOIN LATERAL (
    SELECT m.id, m.status, m.options, m.origin FROM message m
    WHERE m.service_id = %(service)s AND m.channel = 'webhook' AND m.status = s.status
      AND m.id >= uuid7_floor(e.at - interval '2 seconds') AND m.id < uuid7_floor(e.at + interval '1 minute')
    ORDER BY m.id LIMIT 100) c
WHERE c.origin = 'callback' AND (
    c.options @> jsonb_build_object('payload', jsonb_build_object('data', jsonb_build_object('message_id', %(text)s::text)))
    OR c.options @> jsonb_build_object('payload', jsonb_build_object('data', jsonb_build_object('events',
        jsonb_build_array(jsonb_build_object('message_id', %(text)s::text))))))
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
    parameters: dict[str, Any] = {
        "id": message.pk,
        "text": str(message.pk),
        "service": message.service_id,
        "statuses": [str(status) for status in Status],
    }
    with connection.cursor() as cursor:
        cursor.execute(_TOLD, parameters)
        callbacks = tuple((row[0], Status(row[1])) for row in cursor.fetchall())
        cursor.execute(_UNTOLD, parameters)
        return Told(callbacks, cursor.fetchone()[0])
