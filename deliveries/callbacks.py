"""Callbacks: what a service asked to be told becomes a message on the webhook channel. Called by the relay.

Events wait in ``untold``, written by the life cycle; up to fifty of one service become one signed request. They are chosen
by "not yet told", never by a cursor, and leave ``untold`` in the transaction that makes their message.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog

from chaski.vocabulary import Lane
from deliveries import intake
from deliveries.models import Endpoint
from deliveries.models.messages import Origin
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
PER_REQUEST = 50

SERVICES = """
WITH RECURSIVE s AS (
    (SELECT service_id FROM untold ORDER BY service_id LIMIT 1)
    UNION ALL
    SELECT x.service_id FROM s CROSS JOIN LATERAL (
        SELECT u.service_id FROM untold u WHERE u.service_id > s.service_id ORDER BY u.service_id LIMIT 1) x
) SELECT service_id FROM s
"""

TAKE = """
WITH taken AS (
    DELETE FROM untold WHERE (message_id, sequence) IN (
        SELECT message_id, sequence FROM untold WHERE service_id = %(service_id)s
        ORDER BY message_id, sequence LIMIT %(rows)s FOR UPDATE SKIP LOCKED)
    RETURNING message_id, sequence
)
SELECT e.message_id, e.sequence, e.status, e.at, e.reason, m.channel, m.reference, m.metadata, m.error_class, m.error_code
FROM taken JOIN event e ON e.message_id = taken.message_id AND e.sequence = taken.sequence
JOIN message m ON m.id = taken.message_id ORDER BY e.message_id, e.sequence
"""


def make(cursor: Cursor) -> int:
    """Turn one request's worth of events per service into a message; how many events. In the caller's transaction."""
    cursor.execute(SERVICES)
    services = [row[0] for row in cursor.fetchall()]
    return sum(_make_one(cursor, service_id) for service_id in services)


def _make_one(cursor: Cursor, service_id: int) -> int:
    endpoint = Endpoint.objects.select_related("service", "account").filter(service_id=service_id).first()
    cursor.execute(TAKE, {"service_id": service_id, "rows": PER_REQUEST})
    events = [_event(row) for row in cursor.fetchall()]
    if not events or endpoint is None or not endpoint.active:
        return len(events)
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
    checked = intake.draft(endpoint.service, message, key=key, account_id=endpoint.account_id)
    intake.insert(cursor, [checked], origin=Origin.CALLBACK)
    return len(events)


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
