"""What pacing leaves of a claim: how much of each account may be claimed now, and when each call begins. Used by the claims.

Slots are asked for before a claim, a moment ahead, so that claims stay large and calls begin at even distances. What was
claimed and may not be sent soon goes back without having cost an attempt.
"""

from __future__ import annotations

import threading
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
from deliveries.delivery.turns import Narrowed, Room, Turn
from deliveries.pacing import Ask, CacheAway, Grant, LocalBuckets, SharedBuckets, account_key, recipient_key
from deliveries.sql import Cursor

#: How far ahead slots are taken: a claim and its begin fit in, and a doubt after a crash is no older for it. The most urgent
#: lane looks further, for the others have taken what is nearer.
AHEAD_SECONDS, URGENT_AHEAD_SECONDS = 0.25, 0.5
#: Who finds none looks again after so long, so that a claim finds several; for a longer wait than so no task stays.
BREATH_SECONDS, PATIENCE_SECONDS = 0.1, 1.0
#: Who shares an account's rate where no cache says what the others do: counted so often.
COUNT_SECONDS = 2.0
SHARERS = "SELECT count(*) FROM heartbeat WHERE kind = 'worker' AND seen_at > chaski_now() - interval '20 seconds'"

#: What goes back: its attempt, which never began, is undone. Due when it may be sent, so that it is not claimed in vain.
LEAVE = """
WITH left_over AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::uuid[], %(seconds)s::float8[]) AS u(id, seconds)
), undone AS (
    DELETE FROM attempt WHERE message_id = ANY(%(ids)s::uuid[]) AND token = %(token)s AND begun_at IS NULL
)
UPDATE pending p SET lease_until = NULL, lease_token = NULL, solitary = false, attempt_count = p.attempt_count - 1,
    waiting_for = 'rate_limit', due_at = greatest(p.due_at, chaski_now() + make_interval(secs => l.seconds))
FROM left_over l WHERE p.message_id = l.id AND p.message_id = ANY(%(ids)s::uuid[]) AND p.lease_token = %(token)s
"""


@dataclass(slots=True)
class _Held:
    """Slots of one account that are ours and not used: the moments (monotonic), and the grant of the last of them."""

    moments: deque[float] = field(default_factory=deque)
    last: Grant | None = None


class Pace:
    """The slots of one worker process. Thread-safe; asks the cache, and without one keeps its share of each rate by itself."""

    def __init__(self) -> None:
        self._shared, self._local = SharedBuckets(), LocalBuckets()
        self._held: dict[int, _Held] = {}
        self._stops: dict[int, float] = {}
        self._sharers = (float("-inf"), 1)
        self._lock = threading.Lock()

    def stop(self, account_id: int, seconds: float) -> None:
        """The vendor wants no call through the account for ``seconds``; told to the others before the next claim."""
        self._stops[account_id] = time.monotonic() + seconds

    def narrow(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], turns: Iterable[Turn], room: Room, lane: Lane
    ) -> Narrowed:
        """``room`` with what ``accounts`` that have ``turns`` may send in the next moments. Their slots are taken for that."""
        wanted = {turn.account_id for turn in turns} - room.shut
        rates = {each: rate for each in wanted if (rate := _rates(accounts, each).account) is not None}
        if not rates:
            return Narrowed(room)
        ahead = URGENT_AHEAD_SECONDS if lane is Lane.URGENT else AHEAD_SECONDS
        with self._lock:
            firsts = self._top_up(cursor, {each: room.of(each) for each in rates}, rates, ahead)
            slots = {each: len(self._held[each].moments) for each in rates}
        none = {each for each, count in slots.items() if not count}
        some = {each: count for each, count in slots.items() if count}
        waits = [max(BREATH_SECONDS, firsts[each] - ahead) for each in none if firsts.get(each, 0.0) < PATIENCE_SECONDS]
        return Narrowed(room.but(none, some), min(waits, default=None))

    def admit(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], messages: Sequence[Claimed], lane: Lane
    ) -> list[Claimed]:
        """Those of ``messages`` (one claim) that may be sent, each with its moment; the others go back into the queue."""
        if all(_rates(accounts, message.account_id) == UNPACED for message in messages):
            return list(messages)
        ahead = URGENT_AHEAD_SECONDS if lane is Lane.URGENT else AHEAD_SECONDS
        with self._lock:
            moments, waits = self._recipients(cursor, accounts, messages, ahead)
            admitted = []
            for message in messages:
                if message.id in waits:
                    continue
                moment = self._slot(cursor, accounts, message, ahead)
                if moment is None:
                    waits[message.id] = 0.0
                else:
                    admitted.append(replace(message, start=max(moment, moments.get(message.id, 0.0))))
            self._give_back({message.account_id for message in messages})
        if waits:
            cursor.execute(LEAVE, {"ids": list(waits), "seconds": list(waits.values()), "token": messages[0].token})
        return admitted

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
        grants = self._reserve(cursor, [ask for _, ask in asks])
        now = time.monotonic()
        for (account_id, _), grant in zip(asks, grants, strict=True):
            if grant.slots:
                held = self._held[account_id]
                held.moments.extend(now + grant.first + n * grant.interval for n in range(grant.slots))
                held.last = grant
        return {account_id: grant.first for (account_id, _), grant in zip(asks, grants, strict=True)}

    def _slot(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], message: Claimed, ahead: float
    ) -> float | None:
        """The moment at which ``message`` may begin, as far as its account goes; None where none is near."""
        rate = _rates(accounts, message.account_id).account
        if rate is None:
            return 0.0
        held = self._held.setdefault(message.account_id, _Held())
        if not held.moments:  # claimed by its id, so nothing was asked for before
            self._top_up(cursor, {message.account_id: 1}, {message.account_id: rate}, ahead)
        return held.moments.popleft() if held.moments else None

    def _recipients(
        self, cursor: Cursor, accounts: Mapping[int, LiveAccount], messages: Sequence[Claimed], ahead: float
    ) -> tuple[dict[UUID, float], dict[UUID, float]]:
        """The moments of those whose recipients may be written to soon, and how long the others must wait."""
        paced = [
            (message, Ask(recipient_key(message.account_id, message.recipient), rate, 1, ahead))
            for message in messages
            if (rate := _rates(accounts, message.account_id).recipient) is not None
        ]
        grants = self._reserve(cursor, [ask for _, ask in paced])
        now, moments, waits = time.monotonic(), {}, {}
        behind: Counter[str] = Counter()
        for (message, ask), grant in zip(paced, grants, strict=True):
            if grant.slots:
                moments[message.id] = now + grant.first
            else:
                # Each of several to one person is due when it may be sent, or all would be claimed for each one.
                waits[message.id] = grant.first - ahead + behind[ask.key] * grant.interval
                behind[ask.key] += 1
        return moments, waits

    def _reserve(self, cursor: Cursor, asks: Sequence[Ask]) -> list[Grant]:
        if not asks:
            return []
        try:
            for account_id, until in list(self._stops.items()):
                self._shared.stop(account_key(account_id), max(0.0, until - time.monotonic()))
                self._stops.pop(account_id, None)
            return self._shared.reserve(asks)
        except CacheAway:
            return self._local.reserve(asks, self._count(cursor))

    def _give_back(self, accounts: Iterable[int]) -> None:
        """What this claim did not use, so that who comes next need not wait for it."""
        for account_id in accounts:
            held = self._held.get(account_id)
            if held is None or not held.moments or held.last is None or not held.last.mark:
                continue
            unused = min(len(held.moments), held.last.slots)
            try:
                given = self._shared.give_back(account_key(account_id), held.last, unused)
            except CacheAway:
                given = False
            if given:
                for _ in range(unused):
                    held.moments.pop()
            held.last = None

    def _count(self, cursor: Cursor) -> int:
        counted_at, sharers = self._sharers
        if time.monotonic() - counted_at > COUNT_SECONDS:
            cursor.execute(SHARERS)
            sharers = max(1, cursor.fetchall()[0][0])
            self._sharers = (time.monotonic(), sharers)
        return sharers


def _rates(accounts: Mapping[int, LiveAccount], account_id: int) -> Rates:
    account = accounts.get(account_id)
    return account.rates if account is not None else UNPACED
