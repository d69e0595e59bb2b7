"""Whose turn it is: which services have something waiting through which accounts, and how much of a claim each may take.

Called by the claim. Services of a lane share a claim evenly; within a service its accounts do, so that one that may take no
more keeps nobody else's rows out of sight.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from chaski.vocabulary import Lane
from deliveries.models.messages import LANES
from deliveries.pausing import Pauses
from deliveries.sql import Cursor

#: A loose index scan: one probe per (lane, service, account), however many rows each has.
TURNS = """
WITH RECURSIVE turn AS (
    (SELECT lane, service_id, account_id FROM pending WHERE channel = %(channel)s AND NOT blocked AND lane <= %(lane)s
     ORDER BY lane, service_id, account_id LIMIT 1)
    UNION ALL
    SELECT x.* FROM turn CROSS JOIN LATERAL (
        SELECT p.lane, p.service_id, p.account_id FROM pending p WHERE p.channel = %(channel)s AND NOT p.blocked
            AND p.lane <= %(lane)s
            AND (p.lane, p.service_id, p.account_id) > (turn.lane, turn.service_id, turn.account_id)
        ORDER BY p.lane, p.service_id, p.account_id LIMIT 1) x
)
SELECT lane, service_id, account_id FROM turn
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A service with something waiting in a lane, through one account. ``lane`` as in the database."""

    lane: int
    service_id: int
    account_id: int


@dataclass(frozen=True, slots=True)
class Room:
    """What accounts may still take: ``free`` calls each, ``usual`` for one of which nothing is known; ``full`` ones nothing.

    ``resting`` ones neither, but they are not waited for.
    """

    usual: int
    free: Mapping[int, int] = field(default_factory=dict)
    full: frozenset[int] = frozenset()
    resting: frozenset[int] = frozenset()

    @property
    def shut(self) -> frozenset[int]:
        """All through which nothing may be claimed."""
        return self.full | self.resting

    @property
    def least(self) -> int:
        """What the account with the least room may take."""
        return min((self.usual, *self.free.values()))

    def but(self, resting: Iterable[int], free: Mapping[int, int]) -> Room:
        """The same where accounts are ``resting`` besides, and others may take no more than they have ``free``."""
        least = {account_id: min(self.of(account_id), calls) for account_id, calls in free.items()}
        return replace(self, free={**self.free, **least}, resting=self.resting.union(resting))

    def after(self, calls: Mapping[int, int]) -> Room:
        """What is left once so many ``calls`` of accounts were claimed."""
        return self.but((), {account_id: max(0, self.of(account_id) - count) for account_id, count in calls.items()})

    def of(self, account_id: int) -> int:
        """How many calls of ``account_id`` may begin."""
        return self.free.get(account_id, self.usual)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The room that pacing leaves. ``slots_in``: seconds until some account has a slot, where a task should wait for that."""

    room: Room
    slots_in: float | None = None


#: No account is bounded but by the size of the claim.
UNLIMITED = Room(sys.maxsize)


@dataclass(frozen=True, slots=True)
class Share:
    """How much of one claim a turn may take: ``quota`` at first, ``rest`` more of what the others leave over."""

    turn: Turn
    quota: int
    rest: int


class Turns:
    """Which turns there are, remembered for ``seconds`` per channel and lane."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[tuple[str, Lane], tuple[float, list[Turn]]] = {}

    def known(self, channel: str, lane: Lane) -> list[Turn] | None:
        """Those of ``lane`` and the more urgent ones, as they were a moment ago; None where they must be read."""
        read_at, turns = self._known.get((channel, lane), (float("-inf"), []))
        return turns if time.monotonic() - read_at <= self._seconds else None

    def forget(self, channel: str, lane: Lane) -> None:
        """Read them anew for the next claim."""
        self._known.pop((channel, lane), None)

    def read(self, cursor: Cursor, channel: str, lane: Lane) -> list[Turn]:
        """The same as they are now."""
        cursor.execute(TURNS, {"channel": channel, "lane": LANES.index(lane)})
        turns = [Turn(*row) for row in cursor.fetchall()]
        self._known[channel, lane] = (time.monotonic(), turns)
        return turns


def open_turns(turns: Sequence[Turn], pauses: Pauses, full: frozenset[int]) -> list[Turn]:
    """Those that nothing stops: no pause, and no account that may take no more."""
    return [
        turn
        for turn in turns
        if turn.service_id not in pauses.services
        and turn.account_id not in pauses.accounts
        and turn.account_id not in full
    ]


def shares(turns: Sequence[Turn], n: int, room: Room) -> list[Share]:
    """How ``turns`` share a claim of ``n``: the more urgent lanes first, within a lane in a random order.

    The turns of one account share its room, and no more; those for which nothing is left are left out.
    """
    services = Counter(lane for lane, _ in {(turn.lane, turn.service_id) for turn in turns})
    accounts = Counter((turn.lane, turn.service_id) for turn in turns)
    users = Counter(turn.account_id for turn in turns)
    left = {account_id: room.of(account_id) for account_id in users}
    found = []
    for turn in sorted(random.sample(turns, len(turns)), key=lambda turn: turn.lane):
        most = min(n, ceil(left[turn.account_id] / users[turn.account_id]))
        left[turn.account_id] -= most
        users[turn.account_id] -= 1
        if most:
            quota = min(most, ceil(n / services[turn.lane] / accounts[turn.lane, turn.service_id]))
            found.append(Share(turn, quota, most - quota))
    return found


def satisfied(turns: Sequence[Turn], parts: Sequence[Share], taken: int) -> bool:
    """Whether a claim by ``parts`` of ``turns`` that took ``taken`` left nothing behind for want of room."""
    return len(parts) == len(turns) and taken < min((part.quota + part.rest for part in parts), default=1)
