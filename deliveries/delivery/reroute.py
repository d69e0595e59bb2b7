"""Failover: what waits for an account that is down goes to the next one of its service's routes, and a row says why.

Called by the relay with its sweep; any number of relays may look. Moved is only what has surely not reached anybody: a message
with an attempt that may have arrived stays where its provider may know it, and one that named its account stays because it
was asked to. What stays is pinned, so that it is not looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

import structlog

from channels.base import InvalidOption, Outbound
from channels.registry import UnknownProvider, provider_class
from deliveries.conf import timings
from deliveries.intake import attachments
from deliveries.routing import by_weight
from deliveries.sql import Cursor, as_json

log = structlog.get_logger(__name__)
#: Messages of one look: each may hold a megabyte, and nobody claims them meanwhile.
PAGE = 100

#: An account whose breaker closes again within seconds is not left for another, nor one that an operator has paused.
DOWN = """
SELECT id, reason FROM (
    SELECT account_id AS id, 'its breaker is open' AS reason FROM breaker
    WHERE opened_at < chaski_now() - make_interval(secs => %(patience)s)
    UNION ALL
    SELECT id, 'it was stopped: ' || stopped_reason FROM account WHERE stopped_at IS NOT NULL
) AS down WHERE NOT EXISTS (SELECT FROM pause WHERE scope = 'account' AND value = down.id::text)
"""
ROUTES = """
SELECT r.service_id, r.channel, r.account_id, r.weight, r.position, a.provider,
    a.stopped_at IS NOT NULL OR EXISTS (SELECT FROM breaker b WHERE b.account_id = a.id)
        OR EXISTS (SELECT FROM pause WHERE scope = 'account' AND value = a.id::text)
FROM route r JOIN account a ON a.id = r.account_id
WHERE (r.service_id, r.channel) IN (SELECT service_id, channel FROM route WHERE account_id = ANY(%(down)s))
"""
#: One whose row somebody holds waits alone.
TAKE = """
SELECT p.message_id, m.in_doubt_count > 0, m.content, m.options, m.metadata, m.recipient
FROM (SELECT * FROM pending WHERE channel = %(channel)s AND lane = %(lane)s AND service_id = %(service)s
          AND account_id = %(account)s AND NOT blocked AND NOT pinned AND blind_count = 0 AND suspicion = 0
          AND {which} AND lease_until IS NULL
      ORDER BY due_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT * FROM message WHERE id = p.message_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
"""
#: What came a moment ago may be the message that an open breaker is probed with.
WAITED = TAKE.format(which="due_at < chaski_now() - make_interval(secs => %(patience)s)")
#: That message itself, once it has failed: each time that it is due it would be the probe again, until its attempts are over.
#: Among those that are due first, for a campaign may be scheduled behind them.
FAILED = TAKE.format(
    which="""attempt_count > 0 AND message_id = ANY(ARRAY(
        SELECT message_id FROM pending WHERE channel = %(channel)s AND lane = %(lane)s AND service_id = %(service)s
            AND account_id = %(account)s AND NOT blocked AND NOT pinned AND lease_until IS NULL
        ORDER BY due_at LIMIT 1000))"""
)
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

_LANES = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class StandIn:
    """Another account of the route. ``up``: it can take messages now."""

    account_id: int
    provider: str
    weight: int
    position: int
    up: bool


@dataclass(frozen=True, slots=True)
class Line:
    """What waits for one account that is down: one service's messages on a channel, and who could ever take them."""

    service_id: int
    channel: str
    account_id: int
    reason: str
    stand_ins: tuple[StandIn, ...]


def look(cursor: Cursor) -> int:
    """Move or pin one page; how many messages that were, 0 where there is nothing to do. Runs in the caller's transaction."""
    for line in _lines(cursor):
        for lane, which in product(_LANES, (WAITED, FAILED)):
            if done := _move(cursor, line, lane, which):
                return done
    return 0


def _move(cursor: Cursor, line: Line, lane: int, which: str) -> int:
    given = {
        "service": line.service_id,
        "channel": line.channel,
        "account": line.account_id,
        "lane": lane,
        "patience": _patience(),
        "rows": PAGE,
    }
    cursor.execute(which, given)
    moved: dict[UUID, StandIn] = {}
    pinned = []
    for message_id, may_have_arrived, *said in cursor.fetchall():
        takers = [] if may_have_arrived else [each for each in line.stand_ins if _takes(line, each, *said)]
        if chosen := _choose([each for each in takers if each.up]):
            moved[message_id] = chosen
        elif not takers:
            pinned.append(message_id)
    _pin(cursor, pinned)
    _write(cursor, line, moved)
    return len(moved) + len(pinned)


def _patience() -> float:
    return 5.0 * timings().scale


def _lines(cursor: Cursor) -> list[Line]:
    """The accounts that are down and have somebody to stand in for them."""
    cursor.execute(DOWN, {"patience": _patience()})
    down: dict[int, str] = dict(cursor.fetchall())
    if not down:
        return []
    cursor.execute(ROUTES, {"down": list(down)})
    return [line for line in _with_stand_ins(cursor.fetchall(), down) if any(each.up for each in line.stand_ins)]


def _with_stand_ins(routes: Sequence[Any], down: Mapping[int, str]) -> Iterator[Line]:
    for service_id, channel, account_id, *_ in routes:
        if account_id in down:
            others = (row for row in routes if row[:2] == (service_id, channel) and row[2] != account_id)
            stand_ins = tuple(StandIn(row[2], row[5], row[3], row[4], up=not row[6]) for row in others)
            yield Line(service_id, channel, account_id, down[account_id], stand_ins)


def _choose(takers: Sequence[StandIn]) -> StandIn | None:
    """By order and weight; None of none."""
    first = min((each.position for each in takers), default=0)
    equals = [each for each in takers if each.position == first]
    return by_weight(equals) if equals else None


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
