"""Settling: writing what became of leased messages, all of a batch in one short transaction, fenced by their tokens.

Called by the recorder with results and by the sweep with leases that ended. Of two writers for one lease the second
changes no status: what it knows is kept on its attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chaski.vocabulary import Status
from deliveries import lifecycle
from deliveries.delivery.unmapped import unmapped
from deliveries.lifecycle import Move
from deliveries.retry import Decision, Outcome
from deliveries.sql import Cursor, as_json


@dataclass(frozen=True, slots=True)
class Settlement:
    """One leased message and what was decided. ``suspicion``: workers in a row that vanished while its call was under way."""

    id: UUID
    number: int
    token: UUID
    account_id: int
    opened_at: datetime
    outcome: Outcome
    decision: Decision
    at: datetime | None = None
    crash: int = 0
    suspicion: int = 0


#: In all of these the ids come twice, as rows and as an array: the array makes each table a look-up per id, where the
#: join alone lets the planner read a whole month that it believes to be empty.
#:
#: The places in the queue, and, once these are locked, the attempts that are still open.
SETTLE = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id uuid, token uuid, finished bool, due_at timestamptz,
        held bool, waiting_for text, tries int, blind int, crash int, suspicion int, number int, outcome text, code text,
        detail text, provider_message_id text, at timestamptz, written_at timestamptz)
), locked AS MATERIALIZED (
    -- those too that are no longer ours: a late acceptance may yet take them out of the queue, after their attempts
    SELECT message_id, lease_token FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) ORDER BY message_id FOR UPDATE
), mine AS MATERIALIZED (
    SELECT l.message_id FROM locked l JOIN r ON r.id = l.message_id AND r.token = l.lease_token
), gone AS (
    DELETE FROM pending p USING r, mine WHERE p.message_id = mine.message_id AND r.id = mine.message_id AND r.finished
        AND p.message_id = ANY(%(ids)s::uuid[])
    RETURNING p.message_id, p.service_id, p.ordering_key
), kept AS (
    UPDATE pending p SET lease_until = NULL, lease_token = NULL, solitary = false, due_at = coalesce(r.due_at, p.due_at),
        blocked = r.held, waiting_for = r.waiting_for, tries = r.tries, blind_count = r.blind,
        crash_count = p.crash_count + r.crash, suspicion = r.suspicion
    FROM r, mine WHERE p.message_id = mine.message_id AND r.id = mine.message_id AND NOT r.finished
        AND p.message_id = ANY(%(ids)s::uuid[])
    RETURNING p.message_id
), closed AS (
    -- A receipt may have told the vendor's id before an answer that never came.
    UPDATE attempt a SET finished_at = coalesce(r.at, chaski_now()), outcome = r.outcome, code = r.code,
        detail = r.detail, provider_message_id = coalesce(nullif(r.provider_message_id, ''), a.provider_message_id),
        written_at = r.written_at
    FROM r WHERE a.message_id = r.id AND a.number = r.number AND a.token = r.token AND a.finished_at IS NULL
        AND a.message_id = ANY(%(ids)s::uuid[]) AND (SELECT count(*) FROM locked) >= 0  -- after the locks
    RETURNING a.message_id
)
SELECT 'mine', message_id, service_id, ordering_key FROM gone UNION ALL SELECT 'mine', message_id, NULL, '' FROM kept
UNION ALL SELECT 'closed', message_id, NULL, '' FROM closed
"""

#: For those whose attempt somebody else has closed: what was learned late. Not within the statement before: that one sees
#: what was there when it began, and somebody may have closed them while it waited for the locks. The same outcome once more
#: is no news: the answer to the first COMMIT was lost, or a spill file outlived it.
LATE = """
UPDATE attempt a SET late = jsonb_build_object('at', coalesce(r.at, chaski_now()), 'outcome', r.outcome, 'code', r.code,
        'detail', r.detail, 'provider_message_id', r.provider_message_id, 'written_at', r.written_at),
    written_at = coalesce(a.written_at, r.written_at),
    provider_message_id = CASE WHEN a.provider_message_id = '' THEN r.provider_message_id ELSE a.provider_message_id END
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id uuid, token uuid, number int, outcome text, code text, detail text,
    provider_message_id text, at timestamptz, written_at timestamptz)
WHERE a.message_id = r.id AND a.number = r.number AND a.token = r.token
    AND a.message_id = ANY(%(ids)s::uuid[]) AND a.finished_at IS NOT NULL AND a.late IS NULL
    AND (a.outcome, a.code) IS DISTINCT FROM (r.outcome, r.code)
RETURNING a.message_id
"""

#: The head of a key is gone: the next in order may go. The sweep does the same for all keys. A row that somebody else
#: holds is left to the sweep: waiting for it, with messages locked, could end in a deadlock.
RELEASE = """
WITH head AS (
    SELECT next.message_id FROM unnest(%(services)s::int[], %(keys)s::text[]) AS k(service_id, key)
    CROSS JOIN LATERAL (SELECT p.message_id FROM pending p WHERE p.service_id = k.service_id AND p.ordering_key = k.key
        AND p.ordering_key <> '' ORDER BY p.position LIMIT 1) next
), free AS (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM head))
        AND p.blocked AND p.waiting_for = 'predecessor' FOR UPDATE SKIP LOCKED
)
UPDATE pending p SET blocked = false, waiting_for = ''
WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM free))
"""

#: A late acceptance settles a message that waits, but never one that another worker holds.
TAKE_BACK = """
DELETE FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) AND lease_until IS NULL
RETURNING message_id, service_id, ordering_key
"""

#: Each doubt is asked for from the first request on that no answer has settled.
INQUIRE = """
INSERT INTO inquiry (message_id, number, account_id, since, due_at, asked, said)
SELECT r.id, r.number, r.account_id, (SELECT min(a.opened_at) FROM attempt a WHERE a.message_id = r.id
    AND a.message_id = ANY(%(ids)s::uuid[]) AND a.outcome IN ('in_doubt', 'transient')), r.ask_at, 0, ''
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id uuid, number int, account_id int, ask_at timestamptz)
ON CONFLICT (message_id) DO UPDATE SET number = excluded.number, account_id = excluded.account_id,
    since = excluded.since, due_at = excluded.due_at, asked = 0, said = '', lease_until = NULL, lease_token = NULL
"""

SUPPRESS = """
INSERT INTO suppression (service_id, channel, recipient, reason, actor)
SELECT m.service_id, m.channel, m.recipient, r.reason, 'provider'
FROM unnest(%(ids)s::uuid[], %(reasons)s::text[]) AS r(id, reason) JOIN message m ON m.id = r.id
ON CONFLICT DO NOTHING
"""

STOP_ACCOUNTS = """
UPDATE account a SET stopped_at = chaski_now(), stopped_reason = r.reason
FROM unnest(%(ids)s::int[], %(reasons)s::text[]) AS r(id, reason) WHERE a.id = r.id AND a.stopped_at IS NULL
"""


def settle(cursor: Cursor, settlements: Sequence[Settlement], *, by_its_worker: bool = True) -> set[UUID]:
    """Write ``settlements``; the ids of those whose lease was still ours. Runs in the caller's transaction."""
    rows = sorted(settlements, key=lambda settlement: settlement.id)
    cursor.execute(SETTLE, {"ids": [row.id for row in rows], "rows": as_json([_given(row) for row in rows])})
    answered = cursor.fetchall()
    mine = {message_id for what, message_id, *_ in answered if what == "mine"}
    closed = {message_id for what, message_id, *_ in answered if what == "closed"}
    late = _learn(cursor, [row for row in rows if row.id not in closed] if by_its_worker else [])
    moved = lifecycle.apply(cursor, [_move(row) for row in rows if row.id in mine])
    _withdraw(cursor, [row.id for row in rows if row.id in mine - moved and not row.decision.finished])
    _inquire(cursor, [row for row in rows if row.id in moved and row.decision.ask_at])
    release(cursor, [(service_id, key) for _, _, service_id, key in answered])
    _late(cursor, [row for row in rows if row.id in late - mine and row.outcome.accepted])
    _consequences(cursor, [row for row in rows if row.id in mine])
    return mine


def release(cursor: Cursor, places: Iterable[tuple[int, str]]) -> None:
    """Let the next message of each (service, ordering key) go; an empty key orders nothing and is passed over."""
    ordered = sorted({(service_id, key) for service_id, key in places if key})
    if ordered:
        cursor.execute(RELEASE, {"services": [s for s, _ in ordered], "keys": [k for _, k in ordered]})


def _learn(cursor: Cursor, rows: Sequence[Settlement]) -> set[UUID]:
    """Keep what ``rows`` tell of attempts that are closed; those of which it was news."""
    if not rows:
        return set()
    cursor.execute(LATE, {"ids": [row.id for row in rows], "rows": as_json([_given(row) for row in rows])})
    return {row[0] for row in cursor.fetchall()}


def _given(row: Settlement) -> dict[str, object]:
    decision, outcome = row.decision, row.outcome
    return {
        "id": row.id,
        "token": row.token,
        "finished": decision.finished,
        "due_at": decision.due_at,
        "held": decision.held,
        "waiting_for": decision.waiting_for,
        "tries": decision.tries,
        "blind": decision.blind,
        "crash": row.crash,
        "suspicion": row.suspicion,
        "number": row.number,
        "outcome": outcome.error_class or "accepted",
        "code": outcome.code,
        "detail": outcome.detail,
        "provider_message_id": outcome.provider_message_id,
        "at": row.at,
        "written_at": outcome.written_at,
    }


def _move(row: Settlement) -> Move:
    outcome, decision = row.outcome, row.decision
    refused = not outcome.accepted
    return Move(
        id=row.id,
        path=(Status.SENDING, *decision.path),
        reason=decision.reason or _reason(outcome),
        attempt=row.number,
        opened_at=row.opened_at,
        at=row.at,
        error_class=outcome.error_class if refused else None,
        error_code=outcome.code if refused else None,
        error_detail=(outcome.detail or decision.reason) if refused else None,
        provider_message_id=outcome.provider_message_id or None,
        in_doubt=decision.in_doubt,
    )


def _reason(outcome: Outcome) -> str:
    return " ".join(part for part in (outcome.error_class, outcome.code) if part)


def _withdraw(cursor: Cursor, ids: Sequence[UUID]) -> None:
    # A receipt proved delivery while the call was under way: what was put back into the queue must not go again.
    if ids:
        cursor.execute(TAKE_BACK, {"ids": list(ids)})
        release(cursor, [row[1:] for row in cursor.fetchall()])


def _inquire(cursor: Cursor, rows: Sequence[Settlement]) -> None:
    if rows:
        asked = [
            {"id": row.id, "number": row.number, "account_id": row.account_id, "ask_at": row.decision.ask_at}
            for row in rows
        ]
        cursor.execute(INQUIRE, {"ids": [row.id for row in rows], "rows": as_json(asked)})


def _late(cursor: Cursor, rows: Sequence[Settlement]) -> None:
    if not rows:
        return
    cursor.execute(TAKE_BACK, {"ids": [row.id for row in rows]})
    taken = cursor.fetchall()
    waiting = {row[0] for row in taken}
    moves = [
        Move(
            id=row.id,
            path=(Status.SENT,),
            reason="accepted after its lease had ended",
            attempt=row.number,
            at=row.at,
            provider_message_id=row.outcome.provider_message_id or None,
        )
        for row in rows
        if row.id in waiting
    ]
    lifecycle.apply(cursor, moves)
    release(cursor, [row[1:] for row in taken])


def _consequences(cursor: Cursor, rows: Sequence[Settlement]) -> None:
    if strange := [row for row in rows if row.outcome.unmapped]:
        unmapped.keep(cursor, strange)
    refused = [row for row in rows if row.outcome.suppress]
    if refused:
        reasons = [f"{row.outcome.code}: {row.outcome.detail}"[:500] for row in refused]
        cursor.execute(SUPPRESS, {"ids": [row.id for row in refused], "reasons": reasons})
    stopped = {row.account_id: f"{row.outcome.code}: {row.outcome.detail}" for row in rows if row.decision.stop_account}
    if stopped:
        cursor.execute(STOP_ACCOUNTS, {"ids": list(stopped), "reasons": [text[:600] for text in stopped.values()]})
