"""Replies: what people write to our accounts. Stored as it comes, tied to a conversation, told to the service it belongs to.

Stored by the receipts endpoint; applied, and made into callbacks, by the relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from channels.base import InvalidRecipient
from channels.inbound import Reply
from channels.media import MEDIA
from channels.words import Wish, wish
from deliveries import apart
from deliveries.sql import Cursor, as_json, storable

log = structlog.get_logger(__name__)
#: A person who writes has seen what we wrote within this time; whatever is older is another conversation.
CONVERSATION_DAYS = 30
#: Who sets and lifts what people asked for by a word. A suppression that somebody else set is not lifted by a word.
ACTOR = "recipient"
TEXT_LIMIT, FILES_LIMIT, PAGE = 20_000, 20, 200

STORE = """
INSERT INTO reply (account_id, event_id, channel, sender, name, text, files, answers, at, wish)
SELECT r.account_id, r.event_id, a.channel, r.sender, r.name, r.text, r.files, r.answers, r.at, ''
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(account_id int, event_id text, sender text, name text, text text,
    files text[], answers text, at timestamptz)
JOIN account a ON a.id = r.account_id
ORDER BY r.account_id, r.event_id  -- as receipts are: neither of two processes may wait for the other
ON CONFLICT DO NOTHING
"""

WAITING = """
SELECT r.id, r.account_id, a.service_id, r.channel, r.sender, r.text, r.answers, r.received_at,
    least(coalesce(r.at, r.received_at), r.received_at)
FROM (SELECT * FROM reply WHERE applied_at IS NULL ORDER BY id LIMIT %(rows)s FOR UPDATE SKIP LOCKED) r
JOIN account a ON a.id = r.account_id ORDER BY r.id
"""

#: The message that the person answers, or the last one that went to them through this account.
CONVERSATIONS = """
SELECT r.id, coalesce(answered.message_id, latest.id), coalesce(answered.service_id, latest.service_id)
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id bigint, account_id int, sender text, answers text, received_at timestamptz)
LEFT JOIN LATERAL (
    SELECT t.message_id, m.service_id FROM attempt t JOIN message m ON m.id = t.message_id
    WHERE r.answers <> '' AND t.provider_message_id <> '' AND t.provider_message_id = r.answers
        AND t.account_id = r.account_id LIMIT 1) answered ON true
LEFT JOIN LATERAL (
    SELECT m.id, m.service_id FROM message m WHERE answered.message_id IS NULL AND m.recipient = r.sender
        AND m.account_id = r.account_id AND m.sent_at IS NOT NULL
        AND m.id >= uuid7_floor(r.received_at - make_interval(days => %(days)s))
    ORDER BY m.id DESC LIMIT 1) latest ON true
"""

MARK = """
UPDATE reply SET applied_at = chaski_now(), wish = r.wish, sender = r.sender, service_id = r.service_id,
    message_id = r.message_id
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(id bigint, wish text, sender text, service_id int, message_id uuid)
WHERE reply.id = r.id AND reply.id = ANY(%(ids)s::bigint[])
"""

#: Kept and shown; whoever mended what it met may take the mark away again.
LEAVE = "UPDATE reply SET applied_at = chaski_now() WHERE id = %(id)s"

MET = """
INSERT INTO contact (account_id, person, replied_at)
SELECT account_id, person, max(replied_at)
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(account_id int, person text, replied_at timestamptz)
GROUP BY account_id, person ORDER BY account_id, person
ON CONFLICT (account_id, person) DO UPDATE SET replied_at = greatest(contact.replied_at, excluded.replied_at)
"""

#: Has the person asked for the contrary since? Vendors repeat what we could not take, so that words come out of order.
_SINCE = """
EXISTS (SELECT FROM reply l JOIN account a ON a.id = l.account_id WHERE l.sender = %(person)s AND l.channel = %(channel)s
    AND a.service_id IS NOT DISTINCT FROM %(service)s::int AND l.wish = %(contrary)s
    AND least(coalesce(l.at, l.received_at), l.received_at) > %(at)s)
"""
#: One at a time applies replies, so that two words of one person are heeded in their order.
ALONE = "SELECT pg_try_advisory_xact_lock(hashtextextended('chaski.replies', 0))"

SUPPRESS = f"""
WITH made AS (
    INSERT INTO suppression (service_id, channel, recipient, reason, actor)
    SELECT %(service)s::int, %(channel)s::text, %(person)s::text, %(reason)s, %(actor)s::text WHERE NOT {_SINCE}
    ON CONFLICT DO NOTHING RETURNING 1
)
INSERT INTO audit (actor, action, target, reason, detail)
SELECT %(actor)s::text, 'suppress', %(target)s, %(reason)s, '{{}}' FROM made
"""
LIFT = f"""
WITH gone AS (
    DELETE FROM suppression WHERE service_id IS NOT DISTINCT FROM %(service)s::int AND channel = %(channel)s
        AND recipient = %(person)s AND actor = %(actor)s AND NOT {_SINCE} RETURNING 1
)
INSERT INTO audit (actor, action, target, reason, detail)
SELECT %(actor)s::text, 'unsuppress', %(target)s, %(reason)s, '{{}}' FROM gone
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stored reply. ``owner`` is the service that the account belongs to, None for one that services share."""

    id: int
    account_id: int
    owner: int | None
    channel: str
    sender: str
    text: str
    answers: str
    received_at: datetime
    at: datetime


def store(cursor: Cursor, taken: Sequence[tuple[int, Sequence[Reply]]]) -> None:
    """Keep replies, each list with the id of its account, each provider event once."""
    rows = [_row(account_id, reply) for account_id, replies in taken for reply in replies]
    if rows:
        cursor.execute(STORE, {"rows": as_json(rows)})


def _row(account_id: int, reply: Reply) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "event_id": storable(reply.event_id)[:400],
        "sender": storable(reply.sender)[:2048],
        "name": storable(reply.name)[:200],
        "text": storable(reply.text)[:TEXT_LIMIT],
        "files": [storable(each)[:2048] for each in reply.files[:FILES_LIMIT]],
        "answers": storable(reply.answers)[:400],
        "at": reply.at,
    }


def apply(cursor: Cursor, rows: int = PAGE) -> int:
    """Tie up to ``rows`` stored replies to their conversations and heed what they ask for; how many. In the caller's transaction.

    One process at a time does, and whoever finds another at it leaves it to that one (0). One that belongs to nobody's
    conversation is kept all the same.
    """
    cursor.execute(ALONE)
    if not cursor.fetchone()[0]:
        return 0
    cursor.execute(WAITING, {"rows": rows})
    waiting = [_normalised(Waiting(*row)) for row in cursor.fetchall()]
    if not waiting:
        return 0
    for spoiled, error in apart.write(cursor, waiting, partial(_apply, cursor)):
        log.error("reply_cannot_be_applied", reply=spoiled.id, error=type(error).__name__)
        cursor.execute(LEAVE, {"id": spoiled.id})
    return len(waiting)


def _apply(cursor: Cursor, waiting: Sequence[Waiting]) -> None:
    cursor.execute(CONVERSATIONS, {"rows": as_json(waiting), "days": CONVERSATION_DAYS})
    found = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
    met = [{"account_id": each.account_id, "person": each.sender, "replied_at": each.at} for each in waiting]
    cursor.execute(MET, {"rows": as_json(met)})
    marks = [_mark(each, *found[each.id]) for each in waiting]
    for each in sorted(waiting, key=lambda each: (each.channel, each.sender, each.at, each.id)):
        _heed(cursor, each)
    cursor.execute(MARK, {"rows": as_json(marks), "ids": [each.id for each in waiting]})


def _normalised(reply: Waiting) -> Waiting:
    """With its sender as messages have recipients, so that both are found by one another."""
    try:
        sender = MEDIA[reply.channel].normalise(reply.sender)
    except (KeyError, InvalidRecipient):
        return reply
    return replace(reply, sender=sender)


def _mark(reply: Waiting, message_id: UUID | None, service_id: int | None) -> dict[str, Any]:
    return {
        "id": reply.id,
        "wish": _wish(reply) or "",
        "sender": reply.sender,
        # An account's own service hears what comes to it, whoever wrote first.
        "service_id": service_id if reply.owner is None else reply.owner,
        "message_id": message_id,
    }


def _wish(reply: Waiting) -> Wish | None:
    """A member of a group does not speak for all of it; Telegram's groups have negative ids."""
    return None if reply.sender.startswith("-") else wish(reply.text, reply.channel)


def _heed(cursor: Cursor, reply: Waiting) -> None:
    """A word to an account that services share is meant for all who write from there."""
    asked = _wish(reply)
    if asked is None:
        return
    given = {
        "service": reply.owner,
        "channel": reply.channel,
        "person": reply.sender,
        "reason": f"answered {' '.join(reply.text.split())[:40]!r} (reply {reply.id})",
        "actor": ACTOR,
        "target": f"{reply.channel}:suppression",
        "contrary": str(Wish.START if asked is Wish.STOP else Wish.STOP),
        "at": reply.at,
    }
    cursor.execute(SUPPRESS if asked is Wish.STOP else LIFT, given)
    log.info("wish_heeded", reply=reply.id, account=reply.account_id, wish=str(asked))
