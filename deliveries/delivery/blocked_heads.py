"""Blocked heads: for how long others wait behind one, and what happens then, by the rule of their service.

A head is blocked while something of its own holds it: an attempt that failed, a doubt, an account that is down. One that is due
and not yet taken is not, nor one that waits for its ``send_at``, for the rate of an account or for an operator's pause: what is
behind it would wait as well. Called by the relay with its sweep; any number of relays may look, each on a round of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from chaski.vocabulary import ErrorClass, Status
from deliveries import lifecycle
from deliveries.apart import Apart
from deliveries.delivery.settle import release
from deliveries.delivery.sweep import REMOVE
from deliveries.lifecycle import Aside, Move
from deliveries.models.services import OrderThen
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
#: Heads of one statement, and statements of one look, as for the heads that nobody let go.
PAGE = 5_000
PAGES = 10
#: So many messages are changed in one turn.
ROWS = 250
#: The code of a message that failed because of the one before it.
PREDECESSOR_BLOCKED = "predecessor_blocked"

#: Nothing is asked of a service of which everything is paused: it would go out in the order of its keys afterwards.
RULES = """
SELECT id, order_wait_seconds, order_then FROM service s
WHERE order_wait_seconds IS NOT NULL AND order_then = ANY(%(known)s)
    AND NOT EXISTS (SELECT FROM pause WHERE scope = 'all' OR (scope = 'service' AND value = s.id::text))
ORDER BY id
"""
STOPS = """
SELECT scope, value FROM pause
UNION ALL
SELECT 'down', id::text FROM account WHERE stopped_at IS NOT NULL
UNION ALL
SELECT 'down', account_id::text FROM breaker
"""

#: Looked at again under the lock of the row: it may have been claimed, sent, resolved or moved to another account meanwhile.
#: The key so that no plan reads the index of all keys where rows are looked up by their ids.
BLOCKED = """
    length(p.ordering_key) > 0 AND p.lease_until IS NULL AND (
        (p.blocked AND p.waiting_for = 'operator')
        OR (NOT p.blocked AND p.due_at > chaski_now() AND p.attempt_count > 0 AND p.waiting_for IN ('retry', 'rate_limit'))
        OR (NOT p.blocked AND p.due_at <= chaski_now() AND p.account_id = ANY(%(down)s::int[])))
"""
#: What an operator has paused keeps its place.
UNPAUSED = """
    p.channel <> ALL(%(channels)s::text[]) AND p.account_id <> ALL(%(paused)s::int[])
    AND (p.batch_id IS NULL OR p.batch_id <> ALL(%(batches)s::uuid[]))
"""
WAITS = "p.blocked AND p.waiting_for = 'predecessor' AND p.lease_until IS NULL"
OVER = "greatest(head.blocking_at, p.due_at) + make_interval(secs => %(wait)s) <= chaski_now()"

#: A loose scan over the keys of one service, from the key after the one where the last page ended. Gives the last key, how
#: many there were, and of those that are blocked the ones to be marked, and the ones that were waited for long enough.
LOOK = f"""
WITH RECURSIVE head AS (
    (SELECT p.*, 1 AS n FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
        AND p.ordering_key > %(after)s
     ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1)
    UNION ALL
    SELECT x.*, head.n + 1 FROM head CROSS JOIN LATERAL (
        SELECT p.* FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
            AND p.ordering_key > head.ordering_key
        ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1) x
    WHERE head.n < %(page)s
), blocked AS MATERIALIZED (
    SELECT * FROM head p WHERE {BLOCKED} AND {UNPAUSED}
), found AS MATERIALIZED (
    SELECT head.ordering_key, head.message_id, p.message_id AS next_id, head.blocking_at IS NOT NULL AS overdue
    FROM blocked head CROSS JOIN LATERAL (
        SELECT p.* FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
            AND p.ordering_key = head.ordering_key AND p.position > head.position
        ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1) p
    WHERE {WAITS} AND {UNPAUSED} AND p.due_at <= chaski_now() AND p.account_id <> ALL(%(useless)s::int[])
        AND (head.blocking_at IS NULL OR {OVER})
    ORDER BY head.n LIMIT %(rows)s
), last AS (
    SELECT ordering_key, n FROM head ORDER BY n DESC LIMIT 1
)
SELECT last.ordering_key, last.n, found.ordering_key, found.message_id, found.next_id, found.overdue
FROM last LEFT JOIN found ON true
"""

MARK = f"""
WITH free AS (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(%(heads)s::uuid[]) AND p.blocking_at IS NULL AND {BLOCKED}
    FOR UPDATE SKIP LOCKED
)
UPDATE pending p SET blocking_at = chaski_now() WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM free))
RETURNING p.message_id
"""

_WHY = """
    CASE WHEN p.waiting_for = 'operator' AND p.blocked THEN 'it is in doubt'
        WHEN p.due_at <= chaski_now() THEN 'its account is down'
        WHEN p.waiting_for = 'rate_limit' THEN 'its provider takes no more for now'
        ELSE 'it waits for its next attempt' END AS why
"""

#: Heads and, for each, the next one, that nobody else holds. What is in nobody's hands now is ours.
TAKE = f"""
SELECT head.message_id, head.service_id, head.ordering_key, head.why, p.message_id, m.status
FROM unnest(%(heads)s::uuid[], %(nexts)s::uuid[]) AS pair(head_id, next_id)
CROSS JOIN LATERAL (SELECT p.message_id, p.service_id, p.ordering_key, {_WHY} FROM pending p
    WHERE p.message_id = pair.head_id AND {BLOCKED} LIMIT 1 FOR UPDATE SKIP LOCKED) head
CROSS JOIN LATERAL (SELECT p.message_id FROM pending p
    WHERE p.message_id = pair.next_id AND {WAITS} LIMIT 1 FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT status FROM message WHERE id = pair.head_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
WHERE pair.head_id <> ALL(%(apart)s::uuid[])
"""
#: Its place in the queue forgets the key, the message keeps it: a redelivery puts it into its order again.
LEAVE = "UPDATE pending SET ordering_key = '', blocking_at = NULL WHERE message_id = ANY(%(ids)s::uuid[])"

#: What has waited long enough behind each head; the head is held meanwhile, so that it does not go.
REST = f"""
SELECT p.message_id, head.message_id, head.blocking_at, head.why
FROM unnest(%(heads)s::uuid[]) AS blocked(id)
CROSS JOIN LATERAL (SELECT p.*, {_WHY} FROM pending p
    WHERE p.message_id = blocked.id AND {BLOCKED} LIMIT 1 FOR UPDATE SKIP LOCKED) head
CROSS JOIN LATERAL (SELECT p.message_id FROM pending p WHERE p.ordering_key <> '' AND p.service_id = head.service_id
        AND p.ordering_key = head.ordering_key AND p.position > head.position AND {WAITS} AND {UNPAUSED} AND {OVER}
        AND p.message_id <> ALL(%(apart)s::uuid[])
    ORDER BY p.service_id, p.ordering_key, p.position LIMIT %(rows)s FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT id FROM message WHERE id = p.message_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
LIMIT %(rows)s
"""

_NOT_ASIDE = Apart("head_cannot_step_aside")
_NOT_FAILED = Apart("message_cannot_fail")
_START = (0, "")


@dataclass(frozen=True, slots=True)
class Rule:
    """What one service wants of a blocked head."""

    service_id: int
    wait_seconds: int
    then: OrderThen


@dataclass(frozen=True, slots=True)
class Head:
    """A blocked head that is waited for no longer. ``why`` in words; ``status`` is what its message says."""

    id: UUID
    service_id: int
    ordering_key: str
    why: str
    next_id: UUID
    status: str


@dataclass(frozen=True, slots=True)
class Left:
    """A message that waited behind ``head_id`` for as long as its service allows. ``since`` that is known to be blocked."""

    id: UUID
    head_id: UUID
    since: datetime
    why: str


class BlockedHeads:
    """One relay's rounds over the heads of all services that have a rule, a bounded piece at a time. Not for two threads at once.

    Where it is is kept in memory alone, as in ``deliveries.delivery.heads``; since when a head is blocked is in the database.
    """

    def __init__(self) -> None:
        self._after = _START

    def look(self, cursor: Cursor) -> int:
        """Mark the blocked heads of the next piece, and do what the rules say of those that were waited for; how many changed.

        Goes on through pages without any until its round ends or the piece is done. Runs in the caller's transaction.
        """
        rules = _rules(cursor)
        stops = _stops(cursor) if rules else {}
        for _ in range(PAGES):
            rule = next((each for each in rules if each.service_id >= self._after[0]), None)
            if rule is None:
                self._after = _START
                return 0
            if done := self._page(cursor, rule, stops):
                return done
        return 0

    def _page(self, cursor: Cursor, rule: Rule, stops: dict[str, Any]) -> int:
        begin = self._after[1] if self._after[0] == rule.service_id else ""
        useless = stops["down"] if rule.then is OrderThen.SKIP else []
        given = {**stops, "service": rule.service_id, "wait": rule.wait_seconds, "rows": ROWS, "useless": useless}
        cursor.execute(LOOK, {**given, "after": begin, "page": PAGE})
        rows = cursor.fetchall()
        self._after = _after(rule.service_id, rows)
        fresh = [row[3] for row in rows if row[3] and not row[5]]
        overdue = {row[3]: row[4] for row in rows if row[3] and row[5]}
        done = _mark(cursor, fresh, given) if fresh else 0
        if overdue and rule.then is OrderThen.SKIP:
            done += _let_pass(cursor, overdue, given)
        elif overdue:
            failed = _fail_rest(cursor, list(overdue), given)
            if failed == ROWS:
                self._after = (rule.service_id, begin)  # there may be more behind the same heads
            done += failed
        return done


def _after(service_id: int, rows: Sequence[Any]) -> tuple[int, str]:
    """Where the next page begins."""
    if not rows:
        return (service_id + 1, "")
    if len(rows) == ROWS:
        return (service_id, rows[-1][2])
    return (service_id, rows[0][0]) if rows[0][1] == PAGE else (service_id + 1, "")


def _rules(cursor: Cursor) -> list[Rule]:
    cursor.execute(RULES, {"known": list(OrderThen.values)})
    return [Rule(service_id, seconds, OrderThen(then)) for service_id, seconds, then in cursor.fetchall()]


def _stops(cursor: Cursor) -> dict[str, Any]:
    """What is paused or down, as the statements are given it."""
    cursor.execute(STOPS)
    rows = cursor.fetchall()
    return {
        "channels": [value for scope, value in rows if scope == "channel"],
        "batches": [value for scope, value in rows if scope == "batch"],
        "paused": [int(value) for scope, value in rows if scope == "account"],
        "down": [int(value) for scope, value in rows if scope == "down"],
    }


def _mark(cursor: Cursor, heads: Sequence[UUID], given: dict[str, Any]) -> int:
    cursor.execute(MARK, {**given, "heads": heads})
    return len(cursor.fetchall())


def _let_pass(cursor: Cursor, pairs: dict[UUID, UUID], given: dict[str, Any]) -> int:
    """Have the heads among ``pairs`` (head, next) step aside; how many did."""
    apart = _NOT_ASIDE.ids()
    cursor.execute(TAKE, {**given, "heads": list(pairs), "nexts": list(pairs.values()), "apart": apart})
    heads = [Head(*row) for row in cursor.fetchall()]
    _NOT_ASIDE.write(cursor, heads, partial(_step_aside, cursor), lambda head: head.id)
    if heads:
        log.info("heads_stepped_aside", service=given["service"], count=len(heads))
    return len(heads)


def _step_aside(cursor: Cursor, heads: Sequence[Head]) -> None:
    cursor.execute(LEAVE, {"ids": [head.id for head in heads]})
    lifecycle.step_aside(cursor, [Aside(head.id, Status(head.status), _told(head)) for head in heads])
    release(cursor, [(head.service_id, head.ordering_key) for head in heads])


def _told(head: Head) -> str:
    return f"{head.why}, and message {head.next_id} of its ordering key waits no longer for it"


def _fail_rest(cursor: Cursor, heads: Sequence[UUID], given: dict[str, Any]) -> int:
    """Let what waits behind ``heads`` fail; how many messages that were, ``ROWS`` at most."""
    cursor.execute(REST, {**given, "heads": heads, "apart": _NOT_FAILED.ids()})
    rest = [Left(*row) for row in cursor.fetchall()]
    _NOT_FAILED.write(cursor, rest, partial(_fail, cursor), lambda each: each.id)
    if rest:
        log.info("messages_failed_behind_heads", service=given["service"], heads=len(heads), count=len(rest))
    return len(rest)


def _fail(cursor: Cursor, rest: Sequence[Left]) -> None:
    cursor.execute(REMOVE, {"ids": [each.id for each in rest]})
    lifecycle.apply(cursor, [_failed(each) for each in rest])


def _failed(left: Left) -> Move:
    return Move(
        id=left.id,
        path=(Status.FAILED,),
        reason=f"message {left.head_id} before it in its order is blocked",
        error_class=ErrorClass.NOT_SENT,
        error_code=PREDECESSOR_BLOCKED,
        error_detail=f"message {left.head_id} of its ordering key has been blocked since {left.since:%Y-%m-%d %H:%M:%S} UTC:"
        f" {left.why}; by the rule of its service this one is not sent then",
    )
