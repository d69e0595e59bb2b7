"""Committing drafts: the message, its place in the queue, its acceptance record and its first event, in one statement.

Called with drafts by the API, the commands and the callbacks. A return means COMMIT with synchronous_commit on; the
doorbell is rung only after that.

Single messages that several threads accept at one moment are committed together (``accept_one``).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import structlog
from django.db import IntegrityError, transaction

from chaski.vocabulary import Lane
from deliveries.doorbell import doorbell
from deliveries.intake.draft import Draft
from deliveries.models.messages import LANES, Origin
from deliveries.postgresql.group_commit import GroupCommit
from deliveries.postgresql.prepared import prepared, single_statement
from deliveries.sql import Cursor, as_json

log = structlog.get_logger(__name__)
#: A key is one service's own.
Key = tuple[int, str]


class IdempotencyConflict(ValueError):
    """The key was used before for another message."""

    field: ClassVar[str] = "key"


class IdTaken(ValueError):
    """The message id was used before under another key."""

    field: ClassVar[str] = "id"


class TooLate(ValueError):
    """The message expired between its check and its commit, which a slow stream of rows can cause."""

    field: ClassVar[str] = "expires_at"


#: Why the database refused a row that had passed every check of ours: nobody is to blame but the moment.
_REFUSED = {
    "message_expires_after_it_begins": TooLate("expires_at passed while the message was taken in"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new message stands in the queue. Times are the database's; ``blocked``: it waits for a predecessor."""

    accepted_at: datetime
    due_at: datetime
    blocked: bool
    waiting_for: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """One draft's fate: its message, and whether this call made it (``fresh``, with its place) or an earlier one did."""

    id: UUID
    fresh: bool
    conflict: IdempotencyConflict | IdTaken | TooLate | None = None
    place: Place | None = None


_ACCEPT = """
WITH input AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(
        n int, id uuid, service_id int, account_id int, batch_id uuid, channel text, provider text, lane smallint,
        origin text, recipient text, "to" text, reference text, ordering_key text, key text, fingerprint text,
        request_id text, tags text[], content jsonb, options jsonb, metadata jsonb, send_at timestamptz,
        expires_at timestamptz, pinned boolean)
), claimed AS (
    INSERT INTO idempotency (service_id, key, message_id, fingerprint)
    SELECT service_id, key, id, decode(fingerprint, 'hex') FROM input WHERE key <> '' ORDER BY service_id, key, n
    ON CONFLICT DO NOTHING RETURNING message_id
), fresh AS MATERIALIZED (
    SELECT i.* FROM input i WHERE i.key = '' OR EXISTS (SELECT 1 FROM claimed c WHERE c.message_id = i.id)
), made AS (
    INSERT INTO message (id, service_id, account_id, batch_id, channel, provider, lane, status, origin, recipient, "to",
        reference, ordering_key, idempotency_key, request_id, tags, content, options, metadata, event_sequence,
        attempt_count, in_doubt_count, redelivery_count, provider_message_id, error_class, error_code, error_detail,
        created_at, updated_at, send_at, expires_at)
    SELECT id, service_id, account_id, batch_id, channel, provider, lane, 'queued', origin, recipient, "to",
        reference, ordering_key, key, request_id, coalesce(tags, '{}'), content, options, metadata, 1,
        0, 0, 0, '', '', '', '',
        chaski_now(), chaski_now(), send_at, expires_at
    FROM fresh
), queued AS (
    INSERT INTO pending (message_id, channel, lane, service_id, account_id, batch_id, due_at, expires_at, blocked,
        waiting_for, ordering_key, position, pinned, solitary, suspicion, attempt_count, tries, crash_count, blind_count)
    SELECT f.id, f.channel, f.lane, f.service_id, f.account_id, f.batch_id, coalesce(f.send_at, chaski_now()), f.expires_at,
        behind.someone, CASE WHEN behind.someone THEN 'predecessor' WHEN f.send_at IS NOT NULL THEN 'schedule' ELSE '' END,
        f.ordering_key, CASE WHEN f.ordering_key <> '' THEN nextval('pending_position') END,
        f.pinned, false, 0, 0, 0, 0, 0
    FROM (SELECT *, row_number() OVER (PARTITION BY service_id, ordering_key ORDER BY n) AS turn FROM fresh ORDER BY n) f
    CROSS JOIN LATERAL (SELECT f.ordering_key <> '' AND (f.turn > 1 OR EXISTS (
        SELECT 1 FROM pending p WHERE p.service_id = f.service_id AND p.ordering_key = f.ordering_key
            AND p.ordering_key <> '')) AS someone) behind
    RETURNING message_id, due_at, blocked, waiting_for
), kept AS (
    INSERT INTO acceptance (message_id, service_id, origin, accepted_at)
    SELECT id, service_id, origin, chaski_now() FROM fresh
), told AS (
    INSERT INTO event (message_id, sequence, service_id, status, at, actor, reason)
    SELECT id, 1, service_id, 'queued', chaski_now(), '', '' FROM fresh
)
"""
ACCEPT = f"{_ACCEPT} SELECT message_id, chaski_now(), due_at, blocked, waiting_for FROM queued"
#: For hundreds at once: which of them were new is told only where some were not, and nothing of their places.
ACCEPT_MANY = (
    f"{_ACCEPT} SELECT CASE WHEN count(*) < %(all)s THEN coalesce(array_agg(message_id), '{{}}') END FROM queued"
)

WINNERS = """
SELECT i.service_id, i.key, i.message_id, encode(i.fingerprint, 'hex') FROM idempotency i
JOIN unnest(%(services)s::int[], %(keys)s::text[]) AS wanted(service_id, key)
    ON wanted.service_id = i.service_id AND wanted.key = i.key
"""

#: Positions are drawn under this lock, so that the order of a key is the order of its commits.
LOCK = """
SELECT pg_advisory_xact_lock(hashtextextended(key, service_id))
FROM (SELECT * FROM unnest(%(services)s::int[], %(keys)s::text[]) AS k(service_id, key) ORDER BY service_id, key) k
"""


def accept(drafts: Sequence[Draft], *, origin: Origin, batch_id: UUID | None = None) -> list[Accepted]:
    """Commit ``drafts``; one answer for each, in their order.

    A key that was used before gives the first message back, or a conflict when the body was another. Of equal keys
    given at the same moment one wins and the others see its message. Rings after the commit, an enclosing one too.
    Raises database errors; then nothing was kept, or (where only the look for winners failed) a repeat with its key finds it.
    """
    if not drafts:
        return []
    try:
        ordered = any(item.ordering_key for item in drafts)
        with transaction.atomic() if ordered else single_statement(), prepared() as cursor:
            fresh = insert(cursor, drafts, origin=origin, batch_id=batch_id)
            winners = _winners(cursor, drafts, fresh)
    except IntegrityError as error:
        if len(drafts) == 1:
            return [Accepted(drafts[0].id, fresh=False, conflict=_blame(error))]
        # One row is to blame: halve until it is alone, so that it does not drag its neighbours.
        middle = len(drafts) // 2
        halves = (drafts[:middle], drafts[middle:])
        return [answer for half in halves for answer in accept(half, origin=origin, batch_id=batch_id)]
    transaction.on_commit(lambda: _committed([item for item in drafts if item.id in fresh], batch_id))
    return [_answer(item, fresh, winners) for item in drafts]


_together = GroupCommit(partial(accept, origin=Origin.API))


def accept_one(draft: Draft) -> Accepted:
    """Commit one draft of a request to the API, together with those that other threads bring meanwhile. As ``accept``.

    One with an ordering key goes alone: it may have to wait for another one's lock, and nobody shall wait with it.
    """
    return accept([draft], origin=Origin.API)[0] if draft.ordering_key else _together.write(draft)


def _committed(fresh: Sequence[Draft], batch_id: UUID | None) -> None:
    ring(fresh)
    if batch_id is not None:
        log.info("messages_accepted", batch_id=str(batch_id), count=len(fresh))
        return
    for item in fresh:
        # The thread that commits may serve another request than the message's.
        named = {"request_id": item.request_id} if item.request_id else {}
        log.info("message_accepted", message_id=str(item.id), service=item.service_id, channel=item.channel, **named)


def _blame(error: IntegrityError) -> IdTaken | TooLate:
    """What a single refused row did wrong. Raises ``error`` again where it is a mistake of ours."""
    cause = error.__cause__
    if isinstance(cause, psycopg.errors.UniqueViolation):
        return IdTaken("belongs to another message; mint a new one")
    if isinstance(cause, psycopg.errors.CheckViolation) and cause.diag.constraint_name in _REFUSED:
        return _REFUSED[cause.diag.constraint_name]
    raise error


def insert(
    cursor: Cursor, drafts: Sequence[Draft], *, origin: Origin, batch_id: UUID | None = None
) -> Mapping[UUID, Place | None]:
    """Insert ``drafts`` in the caller's transaction; those that were new, by id, with their places where they come without a
    batch. Ring only after its commit."""
    rows = [_row(number, item, origin, batch_id) for number, item in enumerate(drafts)]
    lock_keys(cursor, {(item.service_id, item.ordering_key) for item in drafts if item.ordering_key})
    if batch_id is None:
        cursor.execute(ACCEPT, {"rows": as_json(rows)})
        return {row[0]: Place(*row[1:]) for row in cursor.fetchall()}
    cursor.execute(ACCEPT_MANY, {"rows": as_json(rows), "all": len(rows)})
    new = cursor.fetchall()[0][0]
    return dict.fromkeys([item.id for item in drafts] if new is None else new)


def lock_keys(cursor: Cursor, ordered: Collection[Key]) -> None:
    """Let nobody else put a message behind the last of these (service, ordering key) until the transaction ends."""
    if ordered:
        cursor.execute(LOCK, _arrays(ordered))


def _winners(cursor: Cursor, drafts: Sequence[Draft], fresh: Container[UUID]) -> dict[Key, tuple[UUID, str]]:
    late = {(item.service_id, item.key) for item in drafts if item.id not in fresh}
    if not late:
        return {}
    cursor.execute(WINNERS, _arrays(late))
    return {(service_id, key): (message_id, print_) for service_id, key, message_id, print_ in cursor.fetchall()}


def _arrays(keys: Collection[Key]) -> dict[str, list[Any]]:
    return {"services": [service_id for service_id, _ in keys], "keys": [key for _, key in keys]}


def _answer(item: Draft, fresh: Mapping[UUID, Place | None], winners: Mapping[Key, tuple[UUID, str]]) -> Accepted:
    if item.id in fresh:
        return Accepted(item.id, fresh=True, place=fresh[item.id])
    message_id, fingerprint = winners[item.service_id, item.key]
    if fingerprint != item.fingerprint:
        return Accepted(
            message_id,
            fresh=False,
            conflict=IdempotencyConflict("was used for another message; use a new key for a new message"),
        )
    return Accepted(message_id, fresh=False)


def ring(drafts: Iterable[Draft]) -> None:
    """Ring for committed drafts that are due now, one bell per channel and lane."""
    due: dict[tuple[str, Lane], list[UUID]] = {}
    for item in drafts:
        if item.send_at is None:
            due.setdefault((item.channel, item.lane), []).append(item.id)
    for (channel, lane), ids in due.items():
        doorbell.ring(channel, lane, ids)


def _row(number: int, item: Draft, origin: Origin, batch_id: UUID | None) -> dict[str, Any]:
    return {
        "n": number,
        "id": item.id,
        "service_id": item.service_id,
        "account_id": item.account.id,
        "batch_id": batch_id,
        "channel": item.channel,
        "provider": item.account.provider,
        "lane": LANES.index(item.lane),
        "origin": origin,
        "recipient": item.recipient,
        "to": item.to,
        "reference": item.reference,
        "ordering_key": item.ordering_key,
        "key": item.key,
        "fingerprint": item.fingerprint,
        "request_id": item.request_id,
        "tags": item.tags,
        "content": item.content,
        "options": item.options,
        "metadata": item.metadata,
        "send_at": item.send_at,
        "expires_at": item.expires_at,
        "pinned": item.pinned,
    }
