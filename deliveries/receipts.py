"""Receipts: stored once as they come, applied in batches. Called by the receipts endpoint and the relay.

A receipt never moves a message back. One that contradicts what is known is kept and shown; one that comes before its
send is recorded waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from channels.base import Receipt, ReceiptKind
from chaski.vocabulary import Status
from deliveries import apart, lifecycle
from deliveries.delivery import media_rows
from deliveries.delivery.settle import release
from deliveries.lifecycle import MOVES, Move
from deliveries.models.evidence import ReceiptEffect
from deliveries.sql import Cursor, as_json, storable

STORE = """
INSERT INTO receipt (account_id, event_id, kind, message_id, provider_message_id, at, code, detail, effect)
SELECT r.account_id, r.event_id, r.kind, nullif(r.message_id, '')::uuid, r.provider_message_id, r.at, r.code, r.detail, ''
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(account_id int, event_id text, kind text, message_id text,
    provider_message_id text, at timestamptz, code text, detail text)
ORDER BY r.account_id, r.event_id  -- the same receipts come to two processes at once: neither may wait for the other
ON CONFLICT DO NOTHING RETURNING account_id, event_id
"""

#: Receipts that wait, oldest first, each with its message: by our own id where the vendor echoes it, else by the
#: vendor's. Only a message of the receipt's own account may be moved by it.
WAITING = """
SELECT r.id, r.kind, r.provider_message_id, coalesce(r.at, r.received_at), r.code, r.detail,
       r.received_at < chaski_now() - interval '3 days', m.id
FROM (SELECT * FROM receipt WHERE applied_at IS NULL AND look_at <= chaski_now()
      ORDER BY look_at, id LIMIT %(rows)s FOR UPDATE SKIP LOCKED) r
LEFT JOIN LATERAL (
    SELECT a.message_id FROM attempt a WHERE r.message_id IS NULL AND a.provider_message_id <> ''
        AND a.provider_message_id = r.provider_message_id AND a.account_id = r.account_id LIMIT 1) found ON true
LEFT JOIN LATERAL (
    SELECT id FROM message WHERE id = coalesce(r.message_id, found.message_id)
        AND account_id = r.account_id LIMIT 1) m ON true
ORDER BY r.id
"""

#: Their places in the queue, before their messages: whoever moves a message locks in this order (deliveries.lifecycle).
#: Neither waits for a lock, so that one message in somebody's hands holds up its own receipts alone.
PLACES = (
    "SELECT message_id FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) ORDER BY message_id FOR UPDATE SKIP LOCKED"
)
STATUSES = """
SELECT m.id, m.status FROM message m WHERE m.id = ANY(%(ids)s::uuid[]) AND NOT EXISTS (
    SELECT 1 FROM pending p WHERE p.message_id = m.id AND p.message_id <> ALL(%(locked)s::uuid[]))
ORDER BY m.id FOR UPDATE SKIP LOCKED
"""

MARK = """
UPDATE receipt SET applied_at = chaski_now(), effect = r.effect, message_id = coalesce(receipt.message_id, r.message_id)
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id bigint, effect text, message_id uuid)
WHERE receipt.id = r.id AND receipt.id = ANY(%(ids)s::bigint[])
"""

#: Looked at again after as long as it has waited, so that looks become fewer with each one.
LATER = """
UPDATE receipt SET look_at = chaski_now()
    + least(%(most)s::interval, greatest(%(least)s::interval, chaski_now() - received_at))
WHERE id = ANY(%(ids)s::bigint[])
"""
#: No message yet: its send may not be recorded, for days where a worker's machine is down with its spill. Strangers' receipts,
#: which another system causes that sends from the same number, cost thirty looks each until they are marked.
STRANGE = {"least": "0.2 seconds", "most": "6 hours"}
#: Its message is in somebody's hands.
HELD = {"least": "0.2 seconds", "most": "5 seconds"}
#: It cannot be written until somebody has mended what it meets. The log has its message.
SPOILED = {"least": "10 minutes", "most": "6 hours"}

#: Proved delivered while it waits for another attempt, or held in doubt: it must not go again.
SETTLED = """
DELETE FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) AND lease_until IS NULL RETURNING service_id, ordering_key
"""

#: What is known of the provider's answer even when the attempt could not tell: one that is in doubt rather than a later one,
#: which will have an answer of its own.
LEARN = """
UPDATE attempt a SET provider_message_id = r.provider_message_id
FROM unnest(%(ids)s::uuid[], %(provider_ids)s::text[]) AS r(id, provider_message_id)
WHERE a.message_id = r.id AND a.message_id = ANY(%(ids)s::uuid[]) AND a.provider_message_id = '' AND a.number = (
    SELECT number FROM attempt WHERE message_id = r.id
    ORDER BY (outcome IN ('in_doubt', 'transient') AND provider_message_id = '') DESC, number DESC LIMIT 1)
"""

_FIELDS = tuple(each.name for each in fields(Receipt))
_TARGET = {
    ReceiptKind.SENT: Status.SENT,
    ReceiptKind.DELIVERED: Status.DELIVERED,
    ReceiptKind.READ: Status.READ,
    ReceiptKind.UNDELIVERED: Status.UNDELIVERED,
}
_RANK = {Status.SENT: 1, Status.DELIVERED: 2, Status.READ: 3}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stored receipt and the message that it is about, if there is one."""

    id: int
    kind: str
    provider_message_id: str
    at: datetime
    code: str
    detail: str
    old: bool
    message_id: UUID | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to. ``seen``: whether applied or left for later; as long as there are any, more may be due."""

    seen: int
    applied: int


def store(cursor: Cursor, taken: Sequence[tuple[int, Sequence[Receipt]]]) -> list[int]:
    """Keep receipts, each list with the id of its account, each provider event once; how many of each list were new."""
    rows = [_row(account_id, receipt) for account_id, receipts in taken for receipt in receipts]
    if not rows:
        return [0] * len(taken)
    cursor.execute(STORE, {"rows": as_json(rows)})
    new = Counter(cursor.fetchall())
    return [sum(new[account_id, storable(each.event_id)] for each in receipts) for account_id, receipts in taken]


def _row(account_id: int, receipt: Receipt) -> dict[str, Any]:
    given = {name: getattr(receipt, name) for name in _FIELDS}
    row = {name: storable(value) if isinstance(value, str) else value for name, value in given.items()}
    return {**row, "account_id": account_id, "message_id": _uuid(receipt.message_id)}


def _uuid(text: str) -> str:
    """What the vendor echoes, where it is still an id; else nothing, and the vendor's own id must do."""
    try:
        return str(UUID(text))
    except ValueError:
        return ""


def apply(cursor: Cursor, rows: int = 500) -> Looked:
    """Apply those of up to ``rows`` stored receipts that have a message. Runs in the caller's transaction.

    Waits for no lock: those of a message that somebody else is changing come a moment later. Those that cannot be written
    keep no others from it.
    """
    cursor.execute(WAITING, {"rows": rows})
    waiting = [Waiting(*row) for row in cursor.fetchall()]
    lost = [receipt for receipt in waiting if receipt.message_id is None]
    _leave(cursor, STRANGE, [receipt for receipt in lost if not receipt.old])
    old = [_mark(receipt, ReceiptEffect.UNMATCHED) for receipt in lost if receipt.old]
    _keep(cursor, old)
    return Looked(len(waiting), len(old) + _apply(cursor, _by_message(waiting)))


def _by_message(waiting: Sequence[Waiting]) -> dict[UUID, list[Waiting]]:
    found: dict[UUID, list[Waiting]] = {}
    for receipt in waiting:
        if receipt.message_id is not None:
            found.setdefault(receipt.message_id, []).append(receipt)
    return found


def _apply(cursor: Cursor, known: Mapping[UUID, Sequence[Waiting]]) -> int:
    """Move the messages of ``known``, each with all its receipts; how many receipts were applied."""
    applied: set[int] = set()

    def write(messages: Sequence[UUID]) -> None:
        applied.update(_move_all(cursor, {each: known[each] for each in messages}))

    spoiled = apart.write(cursor, sorted(known), write) if known else []
    for message_id, error in spoiled:
        apart.told("receipt_cannot_be_applied", message_id, error)
        _leave(cursor, SPOILED, known[message_id])
    return len(applied)


def _move_all(cursor: Cursor, known: Mapping[UUID, Sequence[Waiting]]) -> set[int]:
    statuses = _locked(cursor, set(known))
    free = [receipt for message_id in statuses for receipt in known[message_id]]
    marks = _fold(cursor, free, statuses)
    _leave(cursor, HELD, [receipt for each, waiting in known.items() if each not in statuses for receipt in waiting])
    media_rows.distrust(cursor, ((receipt.message_id, receipt.code) for receipt in free if receipt.message_id))
    _keep(cursor, marks)
    return {mark["id"] for mark in marks}


def _keep(cursor: Cursor, marks: Sequence[Mapping[str, Any]]) -> None:
    if marks:
        cursor.execute(MARK, {"ids": [mark["id"] for mark in marks], "rows": as_json(marks)})


def _leave(cursor: Cursor, wait: Mapping[str, str], receipts: Sequence[Waiting]) -> None:
    if receipts:
        cursor.execute(LATER, {**wait, "ids": [receipt.id for receipt in receipts]})


def _locked(cursor: Cursor, ids: set[UUID]) -> dict[UUID, Status]:
    """The statuses of those messages that are locked now, with their places in the queue: nothing overtakes what follows."""
    cursor.execute(PLACES, {"ids": sorted(ids)})
    locked = [row[0] for row in cursor.fetchall()]
    cursor.execute(STATUSES, {"ids": sorted(ids), "locked": locked})
    return {message_id: Status(status) for message_id, status in cursor.fetchall()}


def _fold(cursor: Cursor, known: Sequence[Waiting], statuses: Mapping[UUID, Status]) -> list[dict[str, Any]]:
    """Fold all receipts of one message into one move, so that reversed ones do no harm and each message is written once."""
    after = dict(statuses)
    moves: dict[UUID, Move] = {}
    marks = []
    for receipt in known:
        assert receipt.message_id is not None
        now = after[receipt.message_id]
        path = path_for(now, ReceiptKind(receipt.kind))
        marks.append(_mark(receipt, effect(now, ReceiptKind(receipt.kind), path)))
        if path:
            after[receipt.message_id] = path[-1]
            earlier = moves.get(receipt.message_id)
            moves[receipt.message_id] = _move(receipt, (*(earlier.path if earlier else ()), *path))
    if moves:
        lifecycle.apply(cursor, moves.values())
        cursor.execute(SETTLED, {"ids": list(moves)})
        release(cursor, cursor.fetchall())
        ids = {r.message_id: r.provider_message_id for r in known if r.message_id in moves and r.provider_message_id}
        cursor.execute(LEARN, {"ids": list(ids), "provider_ids": list(ids.values())})
    return marks


def path_for(now: Status, kind: ReceiptKind) -> tuple[Status, ...]:
    """The steps from ``now`` that a receipt of ``kind`` proves; empty when it moves nothing."""
    target = _TARGET.get(kind)
    if target is None or target == now:
        return ()
    if target in MOVES[now]:
        return (target,)
    # "undelivered" before our own record of "sent": the provider must have taken it first.
    if target is Status.UNDELIVERED and Status.SENT in MOVES[now]:
        return (Status.SENT, target)
    return ()


def effect(now: Status, kind: ReceiptKind, path: tuple[Status, ...]) -> ReceiptEffect:
    """What a receipt did, for people: an older fact says nothing new, a refused one contradicts."""
    target = _TARGET.get(kind)
    if path:
        return ReceiptEffect.MOVED
    if target is None or target == now or _RANK.get(target, 9) <= _RANK.get(now, 0):
        return ReceiptEffect.KEPT
    return ReceiptEffect.CONTRADICTION


def _move(receipt: Waiting, path: tuple[Status, ...]) -> Move:
    assert receipt.message_id is not None
    refused = path[-1] is Status.UNDELIVERED
    return Move(
        id=receipt.message_id,
        path=path,
        actor="provider",
        reason=" ".join(part for part in (f"receipt: {receipt.kind}", receipt.code) if part),
        at=receipt.at,
        error_class="recipient_refused" if refused else None,
        error_code=receipt.code if refused else None,
        error_detail=receipt.detail if refused else None,
        provider_message_id=receipt.provider_message_id or None,
    )


def _mark(receipt: Waiting, what: ReceiptEffect) -> dict[str, Any]:
    return {"id": receipt.id, "effect": what, "message_id": receipt.message_id}
