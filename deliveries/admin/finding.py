"""Finding messages for the list: what was asked for, and the statement that an index serves. Called by the message list.

One of five walks is taken, each bounded by the page: by exact text, by what is under way, by what is overdue, by
(service, channel, status) merged from the newest end of each, or the table itself from its newest end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from channels.base import InvalidRecipient
from channels.media import email
from channels.phones import e164
from chaski.vocabulary import Status

#: A message that was due so long ago and that nobody took is stuck: a bell rings every second.
STUCK_AFTER = timedelta(minutes=5)
#: The state that is no status: due, and overdue by ``STUCK_AFTER``.
OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the list is asked for. ``state`` is a status, ``OVERDUE`` or empty.

    ``services`` and ``channels`` list all there are unless the list is ``narrowed`` to some.
    """

    services: tuple[int, ...]
    channels: tuple[str, ...]
    text: str = ""
    state: str = ""
    narrowed: bool = False
    since: datetime | None = None
    after: UUID | None = None


def find(wanted: Wanted, limit: int) -> list[UUID]:
    """The ids of the newest ``limit`` messages, newest first."""
    sql = _statement(wanted).format(where=_WHERE.get(wanted.state, _BY_STATUS), range=_RANGE)
    with connection.cursor() as cursor:
        cursor.execute(sql, {**_parameters(wanted), "limit": limit})
        return [row[0] for row in cursor.fetchall()]


_RANGE = """
(%(since)s::timestamptz IS NULL OR m.id >= uuid7_floor(%(since)s::timestamptz))
    AND (%(after)s::uuid IS NULL OR m.id < %(after)s::uuid)
"""
_OURS = "m.service_id = ANY(%(services)s::bigint[]) AND m.channel = ANY(%(channels)s::text[])"
_LEASED = "EXISTS (SELECT 1 FROM pending p WHERE p.message_id = m.id AND p.lease_until IS NOT NULL)"
_LATE = """EXISTS (SELECT 1 FROM pending p WHERE p.message_id = m.id AND NOT p.blocked AND p.lease_until IS NULL
    AND p.due_at < chaski_now() - %(stuck)s::interval)"""
_BY_STATUS = "m.status = %(state)s"
_WHERE = {
    "": "true",
    str(Status.QUEUED): f"m.status = 'queued' AND NOT {_LEASED}",
    str(Status.SENDING): f"m.status = 'queued' AND {_LEASED}",
    OVERDUE: _LATE,
}

#: Each branch has its own index; the shape of the text only decides which recipients it may mean.
_TEXT = f"""
SELECT id FROM (
    SELECT m.id FROM message m WHERE m.id = %(uuid)s AND {_OURS} AND {{where}} AND {{range}}
    UNION
    SELECT m.id FROM message m WHERE m.batch_id = %(uuid)s AND {_OURS} AND {{where}} AND {{range}}
    UNION
    SELECT x.id FROM unnest(%(recipients)s::text[]) AS r(recipient) CROSS JOIN LATERAL (
        SELECT m.id FROM message m WHERE m.recipient = r.recipient AND {_OURS} AND {{where}} AND {{range}}
        ORDER BY m.id DESC LIMIT %(limit)s) x
    UNION
    SELECT x.id FROM unnest(%(services)s::bigint[]) AS s(id) CROSS JOIN LATERAL (
        SELECT m.id FROM message m WHERE m.service_id = s.id AND m.reference = %(text)s AND NOT m.reference = ''
            AND {_OURS} AND {{where}} AND {{range}}
        ORDER BY m.id DESC LIMIT %(limit)s) x
    UNION
    SELECT m.id FROM idempotency i JOIN message m ON m.id = i.message_id
    WHERE i.service_id = ANY(%(services)s::int[]) AND i.key = %(text)s AND {_OURS} AND {{where}} AND {{range}}
    UNION
    SELECT m.id FROM attempt a JOIN message m ON m.id = a.message_id
    WHERE a.provider_message_id = %(text)s AND NOT a.provider_message_id = '' AND {_OURS} AND {{where}} AND {{range}}
) found ORDER BY id DESC LIMIT %(limit)s
"""

_UNDER_WAY = f"""
SELECT DISTINCT m.id FROM attempt a JOIN message m ON m.id = a.message_id
WHERE a.finished_at IS NULL AND {_OURS} AND {{where}} AND {{range}} ORDER BY m.id DESC LIMIT %(limit)s
"""

#: The longest overdue of each turn: enough to see what is stuck, however many there are.
_STUCK = f"""
SELECT m.id FROM unnest(%(channels)s::text[]) AS c(channel) CROSS JOIN generate_series(0, 2) AS l(lane)
CROSS JOIN unnest(%(services)s::bigint[]) AS s(id) CROSS JOIN LATERAL (
    SELECT p.message_id FROM pending p WHERE p.channel = c.channel AND p.lane = l.lane AND p.service_id = s.id
        AND NOT p.blocked AND p.lease_until IS NULL AND p.due_at < chaski_now() - %(stuck)s::interval
    ORDER BY p.due_at LIMIT %(limit)s) p
JOIN message m ON m.id = p.message_id WHERE {{range}} AND {_OURS} AND {{where}} ORDER BY m.id DESC LIMIT %(limit)s
"""

_MERGED = """
SELECT x.id FROM unnest(%(channels)s::text[]) AS c(channel) CROSS JOIN unnest(%(statuses)s::text[]) AS t(status)
CROSS JOIN unnest(%(services)s::bigint[]) AS s(id) CROSS JOIN LATERAL (
    SELECT m.id FROM message m WHERE m.service_id = s.id AND m.channel = c.channel AND m.status = t.status
        AND {where} AND {range} ORDER BY m.id DESC LIMIT %(limit)s) x
ORDER BY x.id DESC LIMIT %(limit)s
"""

_NEWEST = "SELECT m.id FROM message m WHERE {range} AND {where} ORDER BY m.id DESC LIMIT %(limit)s"


def _statement(wanted: Wanted) -> str:
    if wanted.text:
        return _TEXT
    if wanted.state == Status.SENDING:
        return _UNDER_WAY
    if wanted.state == OVERDUE:
        return _STUCK
    return _MERGED if wanted.state or wanted.narrowed else _NEWEST


def _parameters(wanted: Wanted) -> dict[str, Any]:
    return {
        "services": list(wanted.services),
        "channels": list(wanted.channels),
        "statuses": [wanted.state] if wanted.state else [str(status) for status in Status],
        "state": wanted.state,
        "since": wanted.since,
        "after": wanted.after,
        "stuck": STUCK_AFTER,
        "text": wanted.text,
        "uuid": _uuid(wanted.text),
        "recipients": sorted(set(recipients(wanted.text))),
    }


def recipients(text: str) -> Iterator[str]:
    """Every recipient that ``text`` may mean: as it stands, as a phone number without its +, as an e-mail address."""
    yield text
    digits = text.strip().lstrip("+").removeprefix("00")
    for normalise, given in ((e164, f"+{digits}"), (email, text)):
        try:
            yield normalise(given)
        except InvalidRecipient:
            continue


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
