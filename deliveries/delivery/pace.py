"""What pacing leaves of a claim: how much of each account may be claimed now, and when each call begins. Used by the claims.

Slots are asked for before a claim, a moment ahead, so that claims stay large and calls begin at even distances. What was
claimed and may not be sent now goes back without having cost an attempt.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from uuid import UUID

from channels.rates import Rate, Rates
from chaski.vocabulary import Lane
from deliveries.delivery.accounts import UNPACED, LiveAccount
from deliveries.delivery.claim import Claimed
from deliveries.delivery.settle import release
from deliveries.delivery.turns import Narrowed, Room, Turn
from deliveries.pacing import LEAD_SECONDS, Ask, Buckets, Grant, account_key, recipient_key
from deliveries.sql import Cursor

#: How far ahead slots are taken: a claim and its begin fit in, and a doubt after a crash is no older for it. The most urgent
#: lane looks further, for the others have taken what is nearer.
AHEAD_SECONDS, URGENT_AHEAD_SECONDS = 0.25, 0.5
#: Who finds none looks again after so long, so that a claim finds several; for a longer wait than so no task stays.
BREATH_SECONDS, PATIENCE_SECONDS = 0.1, 1.0
#: Who shares an account's rate where no cache says what the others do: counted so often.
COUNT_SECONDS = 2.0
SHARERS = "SELECT count(*) FROM heartbeat WHERE kind = 'worker' AND seen_at > chaski_now() - interval '20 seconds'"

#: What goes back: its attempt, which never began, is undone. Due when it may be sent, so that it is not claimed in vain. One
#: whose lease the sweep has ended, or of which a receipt has told something meanwhile, is left to the sweep.
LEAVE = """
WITH mine AS MATERIALIZED (
    SELECT message_id FROM pending WHERE message_id = ANY(%(ids)s::uuid[]) AND lease_token = %(token)s
        AND lease_until > chaski_now() ORDER BY message_id FOR UPDATE
), undone AS (
    DELETE FROM attempt a USING mine WHERE a.message_id = mine.message_id AND a.message_id = ANY(%(ids)s::uuid[])
        AND a.token = %(token)s AND a.begun_at IS NULL AND a.finished_at IS NULL AND a.provider_message_id = ''
    RETURNING a.message_id
)
UPDATE pending p SET lease_until = NULL, lease_token = NULL, solitary = false, attempt_count = p.attempt_count - 1,
    waiting_for = 'rate_limit', due_at = greatest(p.due_at, chaski_now() + make_interval(secs => w.seconds))
FROM unnest(%(ids)s::uuid[], %(seconds)s::float8[]) AS w(id, seconds)
WHERE p.message_id = w.id AND p.message_id = ANY(%(ids)s::uuid[]) AND p.message_id IN (SELECT message_id FROM undone)
"""
#: A receipt may have proved it delivered while it was claimed, and left its place to us.
DONE = """
DELETE FROM pending p USING message m WHERE m.id = p.message_id AND m.id = ANY(%(ids)s::uuid[])
    AND p.message_id = ANY(%(ids)s::uuid[]) AND p.lease_until IS NULL AND m.status <> 'queued'
RETURNING p.service_id, p.ordering_key
"""


@dataclass(slots=True)
class _Held:
    """Slots of one account that are ours and not used: the moments (monotonic), and the grant of the last of them."""

    moments: deque[float] = field(default_factory=deque)
    last: Grant | None = None


class Pace:
    """The slots of one of a process's connections for claims. Not thread-safe: used under the connection's lock."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._held: dict[int, _Held] = {}
        self._sharers = (float("-inf"), 1)

    def narrow(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], turns: Iterable[Turn], room: Room, lane: Lane
    ) -> Narrowed:
        """``room`` with what ``accounts`` that have ``turns`` may send in the next moments. Their slots are taken for that."""
        rates = _account_rates(accounts, {turn.account_id for turn in turns} - room.shut)
        if not rates:
            return Narrowed(room)
        ahead = _ahead(lane)
        firsts = self._top_up(cursor, {each: room.of(each) for each in rates}, rates, ahead)
        slots = {each: self._ready(each) for each in rates}
        none = {each for each, count in slots.items() if not count}
        some = {each: count for each, count in slots.items() if count}
        waits = [max(BREATH_SECONDS, firsts[each] - ahead) for each in none if firsts[each] < PATIENCE_SECONDS]
        return Narrowed(room.but(none, some), min(waits, default=None))

    def admit(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], messages: Sequence[Claimed], lane: Lane
    ) -> list[Claimed]:
        """Those of ``messages`` (one claim) that may be sent, each with its moment; the others go back into the queue.

        Slots that are left over are given back.
        """
        paced = [message for message in messages if _rates(accounts, message.account_id) != UNPACED]
        waits = self._recipients_waits(cursor, accounts, paced)
        ready = [message for message in paced if message.id not in waits]
        rates = _account_rates(accounts, {message.account_id for message in ready})
        counts = Counter(message.account_id for message in ready if message.account_id in rates)
        if any(calls > self._ready(each) for each, calls in counts.items()):
            self._top_up(cursor, counts, rates, _ahead(lane))  # claimed by their ids, so nothing was asked for before
        starts: dict[UUID, float] = {}
        for message in ready:
            moments = self._held[message.account_id].moments if message.account_id in rates else None
            if moments is None:
                starts[message.id] = 0.0
            elif moments:
                starts[message.id] = moments.popleft()
            else:
                waits[message.id] = 0.0
        self._give_back()
        if waits:
            self._leave(cursor, paced[0].token, waits)
        return (
            [replace(m, start=starts.get(m.id, 0.0)) for m in messages if m.id not in waits]
            if paced
            else list(messages)
        )

    def _ready(self, account_id: int) -> int:
        """Slots of the account that are ours."""
        held = self._held.get(account_id)
        return len(held.moments) if held is not None else 0

    def _top_up(
        self, cursor: Cursor, wanted: Mapping[int, int], rates: Mapping[int, Rate], ahead: float
    ) -> dict[int, float]:
        """Take slots up to ``wanted`` for each account; seconds until the first of those for which there were none."""
        now, asks = time.monotonic(), []
        for account_id, rate in rates.items():
            moments = self._held.setdefault(account_id, _Held()).moments
            while moments and moments[0] < now:
                moments.popleft()  # two late calls would come too close
            most = min(wanted[account_id], ceil(ahead / rate.interval))
            asks.append((account_id, Ask(account_key(account_id), rate, max(0, most - len(moments)), ahead)))
        grants = self._buckets.reserve([ask for _, ask in asks], lambda: self._count(cursor))
        now = time.monotonic()
        for (account_id, _), grant in zip(asks, grants, strict=True):
            if grant.slots:
                held = self._held[account_id]
                held.moments.extend(now + grant.first + n * grant.interval for n in range(grant.slots))
                held.last = grant
        return {account_id: grant.first for (account_id, _), grant in zip(asks, grants, strict=True)}

    def _recipients_waits(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], messages: Sequence[Claimed]
    ) -> dict[UUID, float]:
        """How long each must wait whose recipient was written to a moment ago. The others' recipients are taken for them."""
        paced = [
            (message, Ask(recipient_key(message.account_id, message.recipient), rate, 1, LEAD_SECONDS))
            for message in messages
            if (rate := _rates(accounts, message.account_id).recipient) is not None
        ]
        grants = self._buckets.reserve([ask for _, ask in paced], lambda: self._count(cursor))
        waits: dict[UUID, float] = {}
        behind: Counter[str] = Counter()
        for (message, ask), grant in zip(paced, grants, strict=True):
            if not grant.slots:
                # Each of several to one person is due when it may be sent, or all would be claimed for each one.
                waits[message.id] = grant.first + behind[ask.key] * grant.interval
                behind[ask.key] += 1
        return waits

    def _give_back(self) -> None:
        """What was not used, so that who comes next need not wait for it."""
        for account_id, held in self._held.items():
            if held.moments and held.last is not None:
                unused = min(len(held.moments), held.last.slots)
                if self._buckets.give_back(account_key(account_id), held.last, unused):
                    for _ in range(unused):
                        held.moments.pop()
            held.last = None

    @staticmethod
    def _leave(cursor: Cursor, token: UUID, waits: Mapping[UUID, float]) -> None:
        ids = list(waits)
        cursor.execute(LEAVE, {"ids": ids, "seconds": list(waits.values()), "token": token})
        cursor.execute(DONE, {"ids": ids})
        release(cursor, cursor.fetchall())

    def _count(self, cursor: Cursor) -> int:
        counted_at, sharers = self._sharers
        if time.monotonic() - counted_at > COUNT_SECONDS:
            cursor.execute(SHARERS)
            sharers = max(1, cursor.fetchall()[0][0])
            self._sharers = (time.monotonic(), sharers)
        return sharers


def _ahead(lane: Lane) -> float:
    return URGENT_AHEAD_SECONDS if lane is Lane.URGENT else AHEAD_SECONDS


def _account_rates(accounts: Mapping[int, LiveAccount], ids: Iterable[int]) -> dict[int, Rate]:
    """The rates of those accounts that keep one."""
    return {each: rate for each in ids if (rate := _rates(accounts, each).account) is not None}


def _rates(accounts: Mapping[int, LiveAccount], account_id: int) -> Rates:
    account = accounts.get(account_id)
    return account.rates if account is not None else UNPACED
