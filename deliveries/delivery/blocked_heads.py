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
from deliveries.conf import timings
from deliveries.delivery.blocked_rows import CLEAR, LEAVE, LOOK, MARK, REST, RULES, STOPS, TAKE
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
#: Whatever is due for longer and not taken waits for our workers.
PATIENCE_SECONDS = 10.0
#: The code of a message that failed because of the one before it.
PREDECESSOR_BLOCKED = "predecessor_blocked"

_NOT_ASIDE = Apart("head_cannot_step_aside")
_NOT_FAILED = Apart("message_cannot_fail")
_START = (0, "")


@dataclass(frozen=True, slots=True)
class Rule:
    """What one service wants of a blocked head."""

    service_id: int
    wait_seconds: int
    then: OrderThen
    paused: bool


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
        given = {
            **stops,
            "service": rule.service_id,
            "wait": rule.wait_seconds,
            "rows": ROWS,
            "useless": useless,
            "paused_whole": rule.paused,
            "patience": PATIENCE_SECONDS * timings().scale,
        }
        cursor.execute(LOOK, {**given, "after": begin, "page": PAGE})
        rows = cursor.fetchall()
        self._after = _after(rule.service_id, rows)
        if rows and rows[0][6]:
            cleared = _cleared(cursor, rows[0][6], given)
            if cleared == ROWS:
                self._after = (rule.service_id, begin)
            return cleared
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
    return [
        Rule(service_id, seconds, OrderThen(then), paused) for service_id, seconds, then, paused in cursor.fetchall()
    ]


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


def _cleared(cursor: Cursor, heads: Sequence[UUID], given: dict[str, Any]) -> int:
    """Forget since when these were blocked; how many that were."""
    cursor.execute(CLEAR, {**given, "heads": heads})
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
