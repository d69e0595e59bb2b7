"""Failover: what waits for an account that is down goes to the next one of its service's routes, and a row says why.

Called by the relay with its sweep; any number of relays may look. Moved is only what has surely not reached anybody: a message
with an attempt in doubt stays where its provider may know it, and one that named its account stays because it was asked to.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from channels.base import InvalidOption, Outbound
from channels.registry import UnknownProvider, provider_class
from deliveries.conf import timings
from deliveries.intake import attachments
from deliveries.sql import Cursor, as_json

log = structlog.get_logger(__name__)
#: Rows of one look, through one account and lane.
PAGE = 500

#: An account whose breaker closes again within seconds is not left for another.
DOWN = """
SELECT account_id, 'its breaker is open' FROM breaker
WHERE opened_at < chaski_now() - make_interval(secs => %(patience)s)
UNION ALL
SELECT id, 'it was stopped: ' || stopped_reason FROM account WHERE stopped_at IS NOT NULL
"""
ROUTES = """
SELECT r.service_id, r.channel, r.account_id, r.weight, r.position, a.provider
FROM route r JOIN account a ON a.id = r.account_id
WHERE (r.service_id, r.channel) IN (SELECT service_id, channel FROM route WHERE account_id = ANY(%(down)s))
"""
#: A message that came a moment ago may be the one that an open breaker is probed with.
TAKE = """
SELECT p.message_id, p.due_at, p.pinned OR p.blind_count > 0 OR p.suspicion > 0, m.content, m.options, m.metadata, m.recipient
FROM (SELECT * FROM pending WHERE channel = %(channel)s AND lane = %(lane)s AND service_id = %(service)s
          AND account_id = %(account)s AND NOT blocked AND due_at > %(after)s
          AND due_at < chaski_now() - make_interval(secs => %(patience)s) AND lease_until IS NULL
      ORDER BY due_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT * FROM message WHERE id = p.message_id LIMIT 1) m
"""
MOVE = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id uuid, account_id int, provider text)
), moved AS (
    UPDATE pending p SET account_id = r.account_id FROM r
    WHERE p.message_id = r.id AND p.message_id = ANY(%(ids)s::uuid[]) RETURNING p.message_id
), named AS (
    UPDATE message m SET account_id = r.account_id, provider = r.provider, updated_at = chaski_now() FROM r
    WHERE m.id = r.id AND m.id = ANY(%(ids)s::uuid[])
)
INSERT INTO reroute (message_id, from_account_id, to_account_id, reason)
SELECT r.id, %(account)s, r.account_id, %(reason)s FROM r JOIN moved ON moved.message_id = r.id
"""
PIN = "UPDATE pending SET pinned = true WHERE message_id = ANY(%(ids)s::uuid[])"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LANES = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class StandIn:
    """An account of a route that is up."""

    account_id: int
    provider: str
    weight: int
    position: int


@dataclass(frozen=True, slots=True)
class Line:
    """What waits for one account that is down: one service's messages on a channel, and who could take them."""

    service_id: int
    channel: str
    account_id: int
    reason: str
    stand_ins: tuple[StandIn, ...]


class Reroute:
    """One relay's looks, a bounded piece of each line at a time. Not for two threads at once.

    Where it is in a long line is kept in memory alone: a relay that starts anew begins anew.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, str, int, int], datetime] = {}

    def look(self, cursor: Cursor) -> int:
        """Move the next piece of every line; how many messages were moved. Runs in the caller's transaction."""
        lines = _lines(cursor)
        if not lines:
            self._after.clear()
        return sum(self._move(cursor, line, lane) for line in lines for lane in _LANES)

    def _move(self, cursor: Cursor, line: Line, lane: int) -> int:
        place = (line.service_id, line.channel, line.account_id, lane)
        given = {
            "service": line.service_id,
            "channel": line.channel,
            "account": line.account_id,
            "lane": lane,
            "after": self._after.get(place, _EPOCH),
            "patience": _patience(),
            "rows": PAGE,
        }
        cursor.execute(TAKE, given)
        rows = cursor.fetchall()
        self._after[place] = rows[-1][1] if len(rows) == PAGE else _EPOCH
        chosen = {row[0]: _choose(line, *row[3:]) for row in rows if not row[2]}
        moved = {message_id: found for message_id, found in chosen.items() if found is not None}
        # What no other provider takes is not looked at again and again.
        _pin(cursor, chosen.keys() - moved.keys())
        _write(cursor, line, moved)
        return len(moved)


def _patience() -> float:
    return 5.0 * timings().scale


def _lines(cursor: Cursor) -> list[Line]:
    """The accounts that are down and have somebody to stand in for them."""
    cursor.execute(DOWN, {"patience": _patience()})
    down: dict[int, str] = dict(cursor.fetchall())
    if not down:
        return []
    cursor.execute(ROUTES, {"down": list(down)})
    return list(_with_stand_ins(cursor.fetchall(), down))


def _with_stand_ins(routes: Sequence[Any], down: Mapping[int, str]) -> Iterator[Line]:
    up: dict[tuple[int, str], list[StandIn]] = {}
    for service_id, channel, account_id, weight, position, provider in routes:
        if account_id not in down:
            up.setdefault((service_id, channel), []).append(StandIn(account_id, provider, weight, position))
    for service_id, channel, account_id, *_ in routes:
        if account_id in down and (found := up.get((service_id, channel))):
            yield Line(service_id, channel, account_id, down[account_id], tuple(found))


def _choose(line: Line, content: Any, options: Any, metadata: Any, recipient: str) -> StandIn | None:
    """By order and weight, one whose provider takes the message as it is; None where none does."""
    for position in sorted({each.position for each in line.stand_ins}):
        equals = [
            each
            for each in line.stand_ins
            if each.position == position and _takes(line, each, content, options, metadata, recipient)
        ]
        if equals:
            return random.choices(equals, [max(each.weight, 1) for each in equals])[0]  # noqa: S311 - sharing load
    return None


def _takes(line: Line, stand_in: StandIn, content: Any, options: Any, metadata: Any, recipient: str) -> bool:
    """Options above all are a provider's own."""
    try:
        outbound = Outbound(
            message_id="",
            channel=line.channel,
            to=recipient,
            text=content.get("text", ""),
            subject=content.get("subject", ""),
            html=content.get("html", ""),
            options=options,
            metadata=metadata,
            attachments=attachments.of(content, attachments.unread),
        )
        return not provider_class(line.channel, stand_in.provider).refuse(outbound)
    except (UnknownProvider, InvalidOption, AttributeError, LookupError, TypeError, ValueError):
        return False  # a row that intake cannot have written, or a provider that is gone


def _pin(cursor: Cursor, ids: Iterable[UUID]) -> None:
    if found := sorted(ids):
        cursor.execute(PIN, {"ids": found})


def _write(cursor: Cursor, line: Line, moved: Mapping[UUID, StandIn]) -> None:
    if not moved:
        return
    rows = [{"id": id_, "account_id": to.account_id, "provider": to.provider} for id_, to in sorted(moved.items())]
    given = {"rows": as_json(rows), "ids": sorted(moved), "account": line.account_id, "reason": line.reason[:600]}
    cursor.execute(MOVE, given)
    log.info("messages_rerouted", account=line.account_id, service=line.service_id, count=len(moved))
