"""Callbacks: what a service asked to be told becomes a message on the webhook channel. Called by the relay.

Events wait in ``untold``, written by the life cycle; up to fifty of one service become one signed request. They are chosen
by "not yet told", never by a cursor, and leave ``untold`` in the transaction that makes their message.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import structlog

from chaski.vocabulary import Lane
from deliveries import intake
from deliveries.models import Endpoint
from deliveries.models.messages import Origin
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
PER_REQUEST = 50
#: Of all events in one request: below the limit of a message's options, which carry them.
BYTES = 48_000

SERVICES = """
WITH RECURSIVE s AS (
    (SELECT service_id FROM untold ORDER BY service_id LIMIT 1)
    UNION ALL
    SELECT x.service_id FROM s CROSS JOIN LATERAL (
        SELECT u.service_id FROM untold u WHERE u.service_id > s.service_id ORDER BY u.service_id LIMIT 1) x
) SELECT service_id FROM s
"""

WAITING = """
SELECT e.message_id, e.sequence, e.status, e.at, e.reason, m.channel, m.reference, m.metadata, m.error_class, m.error_code
FROM (SELECT message_id, sequence FROM untold WHERE service_id = %(service_id)s
      ORDER BY message_id, sequence LIMIT %(rows)s FOR UPDATE SKIP LOCKED) u
JOIN event e ON e.message_id = u.message_id AND e.sequence = u.sequence
JOIN message m ON m.id = u.message_id ORDER BY e.message_id, e.sequence
"""
TOLD = """
DELETE FROM untold USING unnest(%(ids)s::uuid[], %(sequences)s::int[]) AS told(message_id, sequence)
WHERE untold.message_id = told.message_id AND untold.sequence = told.sequence
"""
FORGET = "DELETE FROM untold WHERE service_id = %(service_id)s"


def services(cursor: Cursor) -> list[int]:
    """The services that have something to be told."""
    cursor.execute(SERVICES)
    return [row[0] for row in cursor.fetchall()]


def make(cursor: Cursor, service_id: int) -> int:
    """Turn one request's worth of a service's events into a message; how many events. In the caller's transaction."""
    endpoint = Endpoint.objects.select_related("service", "account").filter(service_id=service_id, active=True).first()
    if endpoint is None:
        cursor.execute(FORGET, {"service_id": service_id})
        return 0
    cursor.execute(WAITING, {"service_id": service_id, "rows": PER_REQUEST})
    events = fitting([_event(row) for row in cursor.fetchall()])
    if not events:
        return 0
    intake.insert(cursor, [_draft(endpoint, events)], origin=Origin.CALLBACK)
    ids, sequences = zip(*((event["message_id"], event["sequence"]) for event in events), strict=True)
    cursor.execute(TOLD, {"ids": list(ids), "sequences": list(sequences)})
    return len(events)


def fitting(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first events as one request may hold, at least one."""
    sizes = accumulate(len(json.dumps(event)) for event in events)
    return [event for number, (event, size) in enumerate(zip(events, sizes, strict=True)) if not number or size < BYTES]


def _draft(endpoint: Endpoint, events: list[dict[str, Any]]) -> intake.Draft:
    first = events[0]
    message = {
        "channel": "webhook",
        "to": endpoint.url,
        "account": endpoint.account.name,
        "priority": Lane.NORMAL,
        "options": {"payload": payload(events)},
    }
    key = f"callback:{first['message_id']}:{first['sequence']}"
    # A callback is no message of a test service to the sandbox: it goes to the endpoint by the endpoint's own account.
    return intake.draft(endpoint.service, message, key=key, account_id=endpoint.account_id)


def payload(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of one callback: a single event by its own type, several as a list."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    if len(events) == 1:
        return {"type": f"message.{events[0]['status']}", "timestamp": moment, "data": events[0]}
    return {"type": "message.events", "timestamp": moment, "data": {"events": events}}


def _event(row: Any) -> dict[str, Any]:
    message_id, sequence, status, at, reason, channel, reference, metadata, error_class, error_code = row
    event = {
        "message_id": str(message_id),
        "sequence": sequence,
        "status": status,
        "at": at.isoformat(),
        "reason": reason,
        "channel": channel,
        "reference": reference,
        "metadata": metadata if len(str(metadata)) < 1000 else {},
    }
    if error_class:
        event["error"] = {"class": error_class, "code": error_code}
    return event
