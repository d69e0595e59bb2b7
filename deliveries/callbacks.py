"""Callbacks: what a service asked to be told becomes a message on the webhook channel. Called by the relay.

Replies are told in the same way, chosen by their own ``told_at``.

Events wait in ``untold``, written by the life cycle; up to fifty of one service become one signed request. They are chosen
by "not yet told", never by a cursor, and leave ``untold`` for ``told`` in the transaction that makes their message.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import structlog
from uuid_utils.compat import uuid7

from channels.media import MEDIA
from chaski.vocabulary import ErrorClass, Lane, Status
from deliveries import intake, lifecycle
from deliveries.intake.draft import fingerprint
from deliveries.intake.fields import json_object
from deliveries.lifecycle import Move
from deliveries.models import Endpoint
from deliveries.models.messages import Origin
from deliveries.routing import table
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
PER_REQUEST = 50
#: Of all events in one request: below the limit of a message's options, which carry them.
BYTES = 48_000
#: Characters of one reply's text, which may be longer in the database.
TEXT = 5_000
#: The word by which an endpoint asks for replies; the others are statuses.
REPLY = "reply"

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
WITH gone AS (
    DELETE FROM untold USING unnest(%(ids)s::uuid[], %(sequences)s::int[]) AS event(message_id, sequence)
    WHERE untold.message_id = event.message_id AND untold.sequence = event.sequence
    RETURNING untold.message_id, untold.sequence, untold.service_id
)
INSERT INTO told (message_id, sequence, service_id, callback_id)
SELECT message_id, sequence, service_id, %(callback)s FROM gone
"""
REPLY_SERVICES = """
WITH RECURSIVE s AS (
    (SELECT service_id FROM reply WHERE service_id IS NOT NULL AND applied_at IS NOT NULL AND told_at IS NULL
     ORDER BY service_id LIMIT 1)
    UNION ALL
    SELECT x.service_id FROM s CROSS JOIN LATERAL (
        SELECT r.service_id FROM reply r WHERE r.applied_at IS NOT NULL AND r.told_at IS NULL
            AND r.service_id > s.service_id ORDER BY r.service_id LIMIT 1) x
) SELECT service_id FROM s
"""
REPLIES = """
SELECT r.id, r.channel, a.name, r.sender, r.name, r.text, r.files, r.wish, r.at, r.received_at, r.message_id, m.reference,
    m.metadata
FROM (SELECT * FROM reply WHERE service_id = %(service_id)s AND applied_at IS NOT NULL AND told_at IS NULL
      ORDER BY id LIMIT %(rows)s FOR UPDATE SKIP LOCKED) r
JOIN account a ON a.id = r.account_id
LEFT JOIN LATERAL (SELECT reference, metadata FROM message WHERE id = r.message_id AND service_id = r.service_id LIMIT 1) m
    ON true ORDER BY r.id
"""
REPLIES_TOLD = "UPDATE reply SET told_at = chaski_now(), callback_id = %(callback)s WHERE id = ANY(%(ids)s::bigint[])"
WITHDRAW = "DELETE FROM pending WHERE message_id = %(id)s"
#: Looks again in the same snapshot: an endpoint that was set a moment ago wants its first events.
FORGET = """
DELETE FROM untold u WHERE u.service_id = %(service_id)s
    AND NOT EXISTS (SELECT 1 FROM endpoint n WHERE n.service_id = u.service_id AND n.active)
"""


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
    first = events[0]
    callback, refused = _draft(endpoint, payload(events), f"callback:{first['message_id']}:{first['sequence']}")
    intake.insert(cursor, [callback], origin=Origin.CALLBACK)
    if refused is not None:
        _give_up(cursor, callback, refused)
    _write_down(cursor, callback, events)
    return len(events)


def reply_services(cursor: Cursor) -> list[int]:
    """The services to which somebody wrote."""
    cursor.execute(REPLY_SERVICES)
    return [row[0] for row in cursor.fetchall()]


def tell_replies(cursor: Cursor, service_id: int) -> int:
    """Turn one request's worth of replies to a service into a message; how many replies. In the caller's transaction.

    Where nobody wants to hear of them they count as told: an endpoint that is set later hears of what comes later.
    """
    cursor.execute(REPLIES, {"service_id": service_id, "rows": PER_REQUEST})
    rows = cursor.fetchall()
    endpoint = Endpoint.objects.select_related("service", "account").filter(service_id=service_id, active=True).first()
    if endpoint is None or (endpoint.events and REPLY not in endpoint.events):
        cursor.execute(REPLIES_TOLD, {"callback": None, "ids": [row[0] for row in rows]})
        return len(rows)
    replies = fitting([_reply(row) for row in rows])
    if not replies:
        return 0
    callback, refused = _draft(endpoint, reply_payload(replies), f"reply:{replies[0]['reply_id']}")
    intake.insert(cursor, [callback], origin=Origin.CALLBACK)
    if refused is not None:
        _give_up(cursor, callback, refused)
    cursor.execute(REPLIES_TOLD, {"callback": callback.id, "ids": [reply["reply_id"] for reply in replies]})
    return len(replies)


def _write_down(cursor: Cursor, callback: intake.Draft, events: list[dict[str, Any]]) -> None:
    ids, sequences = zip(*((event["message_id"], event["sequence"]) for event in events), strict=True)
    cursor.execute(TOLD, {"ids": list(ids), "sequences": list(sequences), "callback": callback.id})


def _give_up(cursor: Cursor, callback: intake.Draft, refused: intake.InvalidMessage) -> None:
    """A callback that can never go is dead at once: in sight with its reason, and redelivered like any other."""
    cursor.execute(WITHDRAW, {"id": callback.id})
    move = Move(
        id=callback.id,
        path=(Status.FAILED,),
        reason="refused before it could be sent",
        error_class=ErrorClass.RECIPIENT_REFUSED if "to" in refused.errors else ErrorClass.CONTENT_REFUSED,
        error_code="refused_at_intake",
        error_detail=str(refused)[:500],
    )
    lifecycle.apply(cursor, [move])
    log.warning("callback_refused", message_id=str(callback.id), fields=sorted(refused.errors))


def fitting(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first events as one request may hold, at least one."""
    sizes = accumulate(len(json.dumps(event)) for event in events)
    return [event for number, (event, size) in enumerate(zip(events, sizes, strict=True)) if not number or size < BYTES]


def _draft(endpoint: Endpoint, told: dict[str, Any], key: str) -> tuple[intake.Draft, intake.InvalidMessage | None]:
    """The callback, and why it can never go where that is so: tried again at every tick it would hide for ever."""
    message = {
        "channel": "webhook",
        "to": endpoint.url,
        "account": endpoint.account.name,
        "priority": Lane.NORMAL,
        "options": {"payload": told},
    }
    # A callback is no message of a test service to the sandbox: it goes to the endpoint by the endpoint's own account.
    try:
        return intake.draft(endpoint.service, message, key=key, account_id=endpoint.account_id), None
    except intake.InvalidMessage as refused:
        return _unchecked(endpoint, message, key), refused


def _unchecked(endpoint: Endpoint, message: dict[str, Any], key: str) -> intake.Draft:
    return intake.Draft(
        id=uuid7(),
        service_id=endpoint.service_id,
        account=table.get(endpoint.account_id),
        channel=message["channel"],
        lane=message["priority"],
        recipient=endpoint.url,
        to=endpoint.url,
        key=key,
        fingerprint=fingerprint(message),
        content={},
        options=message["options"],
        metadata={},
        tags=[],
        reference="",
        ordering_key="",
        send_at=None,
        expires_at=datetime.now(UTC) + MEDIA["webhook"].expires_after,
    )


def payload(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of one callback: a single event by its own type, several as a list."""
    return _body("message", events[0]["status"], events)


def reply_payload(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of a callback about replies, as ``payload``."""
    return _body("reply", "received", replies)


def _body(about: str, single: str, told: list[dict[str, Any]]) -> dict[str, Any]:
    alone = len(told) == 1
    return {
        "type": f"{about}.{single if alone else 'events'}",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "data": told[0] if alone else {"events": told},
    }


def _reply(row: Any) -> dict[str, Any]:
    reply_id, channel, account, sender, name, text, files, wish, at, received_at, message_id, reference, metadata = row
    return {
        "reply_id": reply_id,
        "channel": channel,
        "account": account,
        "from": sender,
        "name": name,
        "text": text[:TEXT],
        "text_cut": len(text) > TEXT,
        "files": files if len(json.dumps(files)) < TEXT else [],
        "wish": wish,
        "at": at.isoformat() if at else None,
        "received_at": received_at.isoformat(),
        "message_id": str(message_id) if message_id else None,
        "reference": reference or "",
        "metadata": metadata if metadata and _is_small(metadata) else {},
    }


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
        "metadata": metadata if _is_small(metadata) else {},
    }
    if error_class:
        event["error"] = {"class": error_class, "code": error_code}
    return event


def _is_small(metadata: dict[str, Any]) -> bool:
    """Short, and not so deep that it would be refused where it stands in a callback."""
    try:
        json_object({"payload": {"data": {"events": [{"metadata": metadata}]}}})
    except ValueError:
        return False
    return len(str(metadata)) < 1000
