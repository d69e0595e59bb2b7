"""Reading messages: their effective status, what they wait for, and lists that every index can serve.

Called by the API, `trace` and the admin. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from channels.base import InvalidOption
from channels.media import MEDIA
from channels.rates import Rate
from channels.registry import UnknownProvider, provider_class
from chaski.vocabulary import FINAL, Status, WaitingFor
from deliveries import pacing, pausing
from deliveries.models import Account, Message, Pending

#: How long receipts may still come for a message that was handed over.
RECEIPT_WINDOW = timedelta(hours=72)


class NoIndex(ValueError):
    """A combination of filters that no index serves; ``field`` is the filter that is to blame."""

    def __init__(self, field_name: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field_name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ahead:
    """The head that a message waits for. ``since`` it is known to be blocked; ``until``: then ``then`` happens. Aware UTC."""

    id: UUID
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a message waits for and until when, if that is known (aware UTC). ``ahead``: the one before it in its order."""

    reason: str
    until: datetime | None = None
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is asked for. ``after`` is the id below which the page begins."""

    service_id: int | None
    statuses: tuple[Status, ...] = ()
    channels: tuple[str, ...] = ()
    recipient: str = ""
    reference: str = ""
    tag: str = ""
    batch_id: UUID | None = None
    since: UUID | None = None
    until: UUID | None = None
    after: UUID | None = None
    limit: int = 50


def effective_status(message: Message, pending: Pending | None) -> Status:
    """The status as people see it: a queued message under lease is ``sending``."""
    if message.status == Status.QUEUED and pending is not None and pending.lease_until is not None:
        return Status.SENDING
    return Status(message.status)


def is_final(message: Message, now: datetime) -> bool:
    """Can the message no longer change by itself?"""
    status = Status(message.status)
    if status in FINAL:
        return True
    if status not in (Status.SENT, Status.DELIVERED):
        return False
    try:
        provider = provider_class(message.channel, message.provider)
    except UnknownProvider:
        return True
    awaited = provider.receipts and (status is Status.SENT or provider.reads)
    return not awaited or message.updated_at < now - RECEIPT_WINDOW


def waiting(
    pending: Pending | None,
    pauses: pausing.Pauses,
    now: datetime,
    slots: Mapping[int, float] | None = None,
    ahead: Ahead | None = None,
) -> Waiting | None:
    """What ``pending`` waits for. What holds a whole account or channel is computed here, not written to each row.

    ``slots`` as ``until_slots`` gives them, ``ahead`` as ``aheads`` does, where somebody looks at few messages.
    """
    if pending is None or pending.lease_until is not None:
        return None
    if pending.blocked:
        until = ahead.until if ahead is not None and ahead.until is not None and ahead.until > now else None
        return Waiting(pending.waiting_for or WaitingFor.OPERATOR, until, ahead)
    if pending.account_id in pauses.accounts:
        return Waiting(WaitingFor.OPERATOR)
    held = (
        pauses.hold(pending.channel)
        or pending.service_id in pauses.services
        or (pending.batch_id is not None and pending.batch_id in pauses.batches)
    )
    if held:
        return Waiting(WaitingFor.PAUSED)
    if pending.due_at > now:
        return Waiting(pending.waiting_for or WaitingFor.SCHEDULE, pending.due_at)
    if pending.account_id in pauses.breakers:
        return Waiting(WaitingFor.BREAKER, now + timedelta(seconds=max(0.0, pauses.breakers[pending.account_id])))
    if (seconds := (slots or {}).get(pending.account_id, 0.0)) > 0:
        return Waiting(WaitingFor.RATE_LIMIT, now + timedelta(seconds=seconds))
    return None


#: When the rule of the service is applied: to the first behind the head where that steps aside, else to each for itself.
_AHEADS = """
SELECT w.message_id, head.message_id, head.blocking_at, greatest(head.blocking_at,
        CASE s.order_then WHEN 'skip' THEN next.due_at ELSE w.due_at END) + make_interval(secs => s.order_wait_seconds),
    s.order_then
FROM pending w JOIN service s ON s.id = w.service_id
CROSS JOIN LATERAL (SELECT h.message_id, h.blocking_at, h.position FROM pending h WHERE h.ordering_key <> ''
    AND h.service_id = w.service_id AND h.ordering_key = w.ordering_key
    ORDER BY h.service_id, h.ordering_key, h.position LIMIT 1) head
CROSS JOIN LATERAL (SELECT n.due_at FROM pending n WHERE n.ordering_key <> ''
    AND n.service_id = w.service_id AND n.ordering_key = w.ordering_key AND n.position > head.position
    ORDER BY n.service_id, n.ordering_key, n.position LIMIT 1) next
WHERE w.message_id = ANY(%(ids)s) AND head.position < w.position
"""


def aheads(pending: Iterable[Pending]) -> dict[UUID, Ahead]:
    """For each of ``pending`` that waits for a predecessor, the head of its order. One query where there is any."""
    ids = [row.message_id for row in pending if row.blocked and row.waiting_for == WaitingFor.PREDECESSOR]
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_AHEADS, {"ids": ids})
        # No rule applies to a head that is not blocked, or for a service that has none.
        return {
            waiting_id: Ahead(head_id, since, until if since else None, then if since and until else "")
            for waiting_id, head_id, since, until, then in cursor.fetchall()
        }


def until_slots(pending: Iterable[Pending], accounts: Iterable[Account], now: datetime) -> dict[int, float]:
    """Seconds until the next message may leave, for those of ``accounts`` that keep a rate and have one of ``pending`` due."""
    due = {row.account_id for row in pending if row.lease_until is None and not row.blocked and row.due_at <= now}
    rates = {account.pk: _rate(account) for account in accounts if account.pk in due}
    return pacing.waits({account_id: rate for account_id, rate in rates.items() if rate is not None})


def _rate(account: Account) -> Rate | None:
    try:
        return provider_class(account.channel, account.provider).rates(account.options).account
    except (UnknownProvider, InvalidOption):
        return None


def now_and_pauses() -> tuple[datetime, pausing.Pauses]:
    """The database's time and everything that is held."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT chaski_now()")
        moment: datetime = cursor.fetchone()[0]
        return moment, pausing.read(cursor)


def pending_of(messages: Sequence[Message]) -> dict[UUID, Pending]:
    """The queue rows of ``messages``, in one query."""
    return Pending.objects.in_bulk([message.pk for message in messages])


_PAGE = """
SELECT m.* FROM unnest(%(channels)s::text[]) AS c(channel) CROSS JOIN unnest(%(statuses)s::text[]) AS s(status)
CROSS JOIN LATERAL (
    SELECT * FROM message m WHERE m.service_id = %(service_id)s AND m.channel = c.channel AND m.status = s.status
        {where} ORDER BY m.id DESC LIMIT %(limit)s) m
ORDER BY m.id DESC LIMIT %(limit)s
"""
_NARROW = """
SELECT m.* FROM message m WHERE m.service_id = %(service_id)s AND m.channel = ANY(%(channels)s)
    AND m.status = ANY(%(statuses)s) {where} ORDER BY m.id DESC LIMIT %(limit)s
"""
_LEASED = "EXISTS (SELECT 1 FROM pending p WHERE p.message_id = m.id AND p.lease_until IS NOT NULL)"


def page(filters: Filters) -> list[Message]:
    """One page of a service's messages, newest first. Raises ``NoIndex``.

    One index serves every combination of channels and statuses: each pair is walked from its newest entry and the
    walks are merged. A recipient, a reference or a batch has an index of its own.
    """
    narrow = bool(filters.recipient or filters.reference or filters.batch_id)
    if filters.tag and not narrow:
        raise NoIndex("tag", "has no index of its own; give to, reference or batch with it")
    statuses = {Status.QUEUED if status is Status.SENDING else status for status in filters.statuses or tuple(Status)}
    parameters: dict[str, Any] = {
        "service_id": filters.service_id,
        "channels": list(filters.channels or MEDIA),
        "statuses": sorted(str(status) for status in statuses),
        "limit": filters.limit,
        "recipient": filters.recipient,
        "reference": filters.reference,
        "tag": filters.tag,
        "batch_id": filters.batch_id,
        "since": filters.since,
        "until": filters.until,
        "after": filters.after,
    }
    sql = (_NARROW if narrow else _PAGE).format(where=_where(filters))
    return list(Message.objects.raw(sql, parameters))


def _where(filters: Filters) -> str:
    clauses = {
        "AND m.recipient = %(recipient)s": filters.recipient,
        "AND m.reference = %(reference)s": filters.reference,
        "AND %(tag)s = ANY(m.tags)": filters.tag,
        "AND m.batch_id = %(batch_id)s": filters.batch_id,
        "AND m.id >= %(since)s": filters.since,
        "AND m.id < %(until)s": filters.until,
        "AND m.id < %(after)s": filters.after,
    }
    where = [clause for clause, value in clauses.items() if value]
    wanted = set(filters.statuses)
    if Status.SENDING in wanted and Status.QUEUED not in wanted:
        where.append(f"AND (m.status <> 'queued' OR {_LEASED})")
    if Status.QUEUED in wanted and Status.SENDING not in wanted:
        where.append(f"AND (m.status <> 'queued' OR NOT {_LEASED})")
    return " ".join(where)
