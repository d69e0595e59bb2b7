"""The life of a message: the one table of allowed moves, and the one function that applies them.

Every stage that changes a status calls ``apply``; intake alone writes the first one. Nothing else assigns ``status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from chaski.vocabulary import FINAL, Status
from deliveries.sql import Cursor, as_json

S = Status
MOVES: dict[Status, frozenset[Status]] = {
    S.QUEUED: frozenset({S.SENDING, S.CANCELED, S.EXPIRED, S.SUPPRESSED, S.FAILED, S.SENT, S.DELIVERED, S.READ}),
    S.SENDING: frozenset(
        {S.SENT, S.QUEUED, S.FAILED, S.IN_DOUBT, S.EXPIRED, S.SUPPRESSED, S.CANCELED, S.DELIVERED, S.READ}
    ),
    S.IN_DOUBT: frozenset({S.QUEUED, S.SENT, S.DELIVERED, S.READ, S.FAILED}),
    S.SENT: frozenset({S.DELIVERED, S.READ, S.UNDELIVERED}),
    S.DELIVERED: frozenset({S.READ}),
    S.READ: frozenset(),
    S.FAILED: frozenset({S.DELIVERED, S.READ, S.QUEUED}),
    S.UNDELIVERED: frozenset({S.DELIVERED, S.READ, S.QUEUED}),
    S.EXPIRED: frozenset({S.DELIVERED, S.READ, S.QUEUED}),
    S.CANCELED: frozenset(),
    S.SUPPRESSED: frozenset(),
}


#: How the reason of the one event begins that is no move: a head gave its place to the next of its ordering key.
ASIDE = "stepped aside"


class IllegalPath(ValueError):
    """A path whose steps the table does not allow: a mistake in the calling code, never a matter of timing."""


@dataclass(frozen=True, slots=True)
class Move:
    """A message going along ``path``, one event per step.

    ``opened_at`` is the time of a first step SENDING, ``at`` that of the others (None: now). ``in_doubt`` is added to
    the message's count of doubts, ``attempt`` becomes its count of attempts. All times are aware UTC. ``only_from``
    narrows what the table allows: some acts are for some states only.
    """

    id: UUID
    path: tuple[Status, ...]
    actor: str = ""
    reason: str = ""
    attempt: int | None = None
    opened_at: datetime | None = None
    at: datetime | None = None
    error_class: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    provider_message_id: str | None = None
    in_doubt: int = 0
    redelivery: int = 0
    expires_at: datetime | None = None
    only_from: tuple[Status, ...] = ()

    def __post_init__(self) -> None:
        for before, after in pairwise(self.path):
            if after not in MOVES[before]:
                raise IllegalPath(f"{before} -> {after} is not an allowed move")


APPLY = """
WITH move AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(moves)s::jsonb) AS m(
        id uuid, path text[], actor text, reason text, attempt int, opened_at timestamptz, at timestamptz,
        error_class text, error_code text, error_detail text, provider_message_id text, in_doubt int,
        redelivery int, expires_at timestamptz, only_from text[])
), locked AS MATERIALIZED (
    SELECT m.id, m.status, m.service_id, m.origin, m.event_sequence
    FROM message m WHERE m.id = ANY(%(ids)s::uuid[]) ORDER BY m.id FOR UPDATE
), legal AS MATERIALIZED (
    SELECT move.*, locked.status AS before, locked.service_id, locked.origin, locked.event_sequence,
           move.path[cardinality(move.path)] AS last, coalesce(move.at, chaski_now()) AS moment
    FROM move JOIN locked ON locked.id = move.id
    JOIN unnest(%(froms)s::text[], %(tos)s::text[]) AS allowed(before, after)
      ON allowed.before = locked.status AND allowed.after = move.path[1]
     AND (cardinality(move.only_from) = 0 OR locked.status = ANY(move.only_from))
), moved AS (
    UPDATE message m SET
        status = l.last,
        event_sequence = m.event_sequence + cardinality(l.path),
        updated_at = l.moment,
        attempt_count = greatest(m.attempt_count, coalesce(l.attempt, 0)),
        in_doubt_count = m.in_doubt_count + l.in_doubt,
        redelivery_count = m.redelivery_count + l.redelivery,
        expires_at = coalesce(l.expires_at, m.expires_at),
        provider_message_id = coalesce(l.provider_message_id, m.provider_message_id),
        error_class = coalesce(l.error_class, CASE WHEN l.last = ANY(%(good)s) THEN '' ELSE m.error_class END),
        error_code = coalesce(l.error_code, CASE WHEN l.last = ANY(%(good)s) THEN '' ELSE m.error_code END),
        error_detail = coalesce(l.error_detail, CASE WHEN l.last = ANY(%(good)s) THEN '' ELSE m.error_detail END),
        sent_at = CASE WHEN l.path && %(good)s THEN coalesce(m.sent_at, l.moment) ELSE m.sent_at END,
        delivered_at = CASE WHEN l.path && ARRAY['delivered', 'read'] THEN coalesce(m.delivered_at, l.moment)
                            ELSE m.delivered_at END,
        read_at = CASE WHEN 'read' = ANY(l.path) THEN coalesce(m.read_at, l.moment) ELSE m.read_at END,
        finished_at = CASE WHEN l.last = ANY(%(final)s) THEN l.moment END
    FROM legal l WHERE m.id = l.id AND m.id = ANY(%(ids)s::uuid[])
), known AS (
    -- A receipt was quicker: the status stays, what the attempt found out is kept.
    UPDATE message m SET
        attempt_count = greatest(m.attempt_count, coalesce(move.attempt, 0)),
        in_doubt_count = m.in_doubt_count + move.in_doubt,
        provider_message_id = coalesce(nullif(m.provider_message_id, ''), move.provider_message_id, '')
    -- NOT IN is looked up in a hash; NOT EXISTS is planned as a loop over all pairs.
    FROM move WHERE m.id = move.id AND m.id = ANY(%(ids)s::uuid[]) AND move.attempt IS NOT NULL
      AND move.id NOT IN (SELECT id FROM legal)
), answered AS (
    -- What leaves its doubt need not be asked for any more.
    DELETE FROM inquiry i USING legal l WHERE i.message_id = l.id AND l.before = 'in_doubt' AND l.last <> 'in_doubt'
      AND i.message_id = ANY(%(ids)s::uuid[])
), told AS (
    INSERT INTO event (message_id, sequence, service_id, status, at, actor, attempt, reason)
    SELECT l.id, l.event_sequence + step.n, l.service_id, step.status,
           CASE WHEN step.n = 1 AND step.status = 'sending' THEN coalesce(l.opened_at, l.moment) ELSE l.moment END,
           l.actor, l.attempt, CASE WHEN step.n = cardinality(l.path) THEN l.reason ELSE '' END
    FROM legal l CROSS JOIN LATERAL unnest(l.path) WITH ORDINALITY AS step(status, n)
    RETURNING message_id, sequence, service_id, status
), untold AS (
    INSERT INTO untold (message_id, sequence, service_id)
    SELECT told.message_id, told.sequence, told.service_id
    FROM told JOIN endpoint e ON e.service_id = told.service_id AND e.active
    JOIN legal l ON l.id = told.message_id AND l.origin <> 'callback'
    WHERE e.events = '{}' OR told.status = ANY(e.events)
)
SELECT id FROM legal
"""

_PAIRS = [(str(before), str(after)) for before, afters in MOVES.items() for after in sorted(afters)]
#: The statuses in which a head steps aside, and stays.
_WAITS = [str(S.QUEUED), str(S.IN_DOUBT)]
_CONSTANT = {
    "froms": [before for before, _ in _PAIRS],
    "tos": [after for _, after in _PAIRS],
    "good": [str(S.SENT), str(S.DELIVERED), str(S.READ)],
    "final": sorted(str(status) for status in FINAL),
}


def apply(cursor: Cursor, moves: Iterable[Move]) -> set[UUID]:
    """Apply every move that is still allowed; the ids of those that were.

    One statement: the rows are locked in the order of their ids, each status changes only from one that the table
    allows, and each step writes its event. A move that is no longer allowed changes no status: somebody was quicker.
    Two moves of one message in one call are a mistake. Runs in the caller's transaction.

    Who also writes the messages' places in the queue has locked these first, in the order of their ids, before an attempt
    or a message: one order everywhere, or two of them end in a deadlock.
    """
    return _apply(cursor, list(moves), {})


@dataclass(frozen=True, slots=True)
class Aside:
    """A head that steps aside: its status, which it keeps, and why, in words."""

    id: UUID
    status: Status
    why: str


def step_aside(cursor: Cursor, heads: Iterable[Aside]) -> set[UUID]:
    """Write the event that tells of each of ``heads`` that it stepped aside, with its reason; the ids of those still there.

    The one event that is no move: the message keeps its status. Everything else as ``apply``.
    """
    moves = [Move(head.id, (head.status,), reason=f"{ASIDE}: {head.why}") for head in heads]
    return _apply(cursor, moves, {"froms": _WAITS, "tos": _WAITS})


def _apply(cursor: Cursor, rows: Sequence[Move], allowed: Mapping[str, list[str]]) -> set[UUID]:
    if not rows:
        return set()
    if len({move.id for move in rows}) != len(rows):
        raise IllegalPath("two moves of one message in one call")
    ids = [move.id for move in rows]
    cursor.execute(APPLY, {**_CONSTANT, **allowed, "ids": ids, "moves": as_json(rows)})
    return {row[0] for row in cursor.fetchall()}
