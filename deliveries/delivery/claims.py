"""The claims of one worker process: its connections for them, and what must not be claimed now. Used by the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from chaski.vocabulary import Lane
from deliveries import lineage, pausing
from deliveries.conf import timings
from deliveries.delivery.accounts import Accounts, LiveAccount, gone
from deliveries.delivery.begin import Begun, begin
from deliveries.delivery.breakers import Breakers
from deliveries.delivery.claim import Claimed, Claimer, Request, Taken
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.hands import Hand
from deliveries.delivery.leases import lease_seconds
from deliveries.delivery.pace import Pace
from deliveries.delivery.turns import Narrowed, Room, Turn
from deliveries.delivery.window import Window
from deliveries.pacing import Buckets, CacheAway, account_key
from deliveries.sql import Cursor


class Claims:
    """Claims and beginnings, one after the other on each of two connections. Thread-safe.

    The urgent lane has one of its own: a claim of hundreds takes longer than an urgent message may wait.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._urgent, self._others = EngineConnection(), EngineConnection()
        self._claimer, self._buckets, self.breakers = Claimer(), Buckets(), Breakers()
        self._paces = {self._urgent: Pace(self._buckets), self._others: Pace(self._buckets)}
        self._lock = threading.Lock()
        self._resting: dict[int, float] = {}
        self._pauses: tuple[float, pausing.Pauses] | None = None

    def close(self) -> None:
        """Give back both connections."""
        self._urgent.close()
        self._others.close()

    def rest(self, account_id: int, seconds: float) -> None:
        """Claim nothing through the account for so long: its provider asked for that, or has nothing left."""
        with self._lock:
            until = time.monotonic() + seconds
            self._resting[account_id] = max(until, self._resting.get(account_id, until))
        self._buckets.stop(account_key(account_id), seconds)

    def look_anew(self, hand: Hand) -> None:
        """Somebody rang: whoever sends by now has a part in the next claim."""
        self._claimer.turns.forget(hand.channel, hand.lane)

    def claim(
        self,
        hand: Hand,
        window: Window,
        accounts: Accounts,
        n: int,
        ids: tuple[str, ...] = (),
        *,
        solitary: bool = False,
    ) -> Taken:
        """Lease up to ``n`` messages for ``hand``, and take them into their accounts' windows. Raises ``psycopg.Error``."""
        connection = self._connection(hand)
        try:
            # Room is looked at and taken under the connection's lock: two lanes would both see the same.
            with connection.statements() as cursor:
                if self.breakers.flush(cursor):
                    self._pauses = None
                probes: set[int] = set()
                request = self._request(self._paused(connection), hand, window, n, ids, solitary=solitary)
                request = replace(request, narrow=partial(self._narrow, request, accounts, probes))
                taken = self._admitted(cursor, accounts, self._claimer.claim(cursor, request), hand.lane)
                if probes:
                    claimed = [(message.account_id, message.id) for message in taken.messages]
                    self.breakers.claimed(cursor, probes, claimed)
                sending = [message.account_id for message in taken.messages]
                window.begin(sending, _bounds(accounts.get(cursor, sending), sending))
        except BaseException:
            self._pauses = None  # after an outage it may be another database
            raise
        return taken

    def _narrow(
        self,
        request: Request,
        accounts: Accounts,
        probes: set[int],
        cursor: Cursor,
        turns: Sequence[Turn],
        room: Room,
    ) -> Narrowed:
        """``room`` less what breakers and rates forbid; the ``probes`` that this claim may send are noted."""
        of_turns = {turn.account_id for turn in turns}
        broken = of_turns & request.pauses.breakers.keys()
        if broken:
            due = [each for each in broken if request.pauses.breakers[each] <= self._pauses_age()]
            # The lane before this one may have had nothing due for a probe that it took.
            if wanted := set(due) - probes:
                probes |= self.breakers.take(cursor, wanted)
            room = room.but(broken - probes, dict.fromkeys(broken & probes, 1))
        known = accounts.get(cursor, sorted(of_turns))
        return self._pace_of(request.lane).narrow(cursor, known, turns, room, request.lane)

    def _admitted(self, cursor: Cursor, accounts: Accounts, taken: Taken, lane: Lane) -> Taken:
        with suppress(CacheAway):
            self._buckets.tell()
        known = accounts.get(cursor, [message.account_id for message in taken.messages])
        return replace(taken, messages=self._pace_of(lane).admit(cursor, known, taken.messages, lane))

    def left(self, window: Window, message: Claimed) -> None:
        """``message`` is not sent after all."""
        window.leave(message.account_id)
        self.breakers.left(message.account_id, message.id)

    def begin(
        self, hand: Hand, window: Window, claimed: Sequence[Claimed], accounts: Accounts
    ) -> tuple[Begun, dict[int, LiveAccount]]:
        """Commit that the calls of ``claimed`` (one claim) begin, and the accounts to make them with."""
        wanted = {message.account_id for message in claimed}
        try:
            with self._connection(hand).statements() as cursor:
                known = accounts.get(cursor, sorted(wanted))
                begun = begin(cursor, claimed[0].token, [message.id for message in claimed])
        except BaseException:
            self._pauses = None  # as above
            for message in claimed:
                self.left(window, message)
            raise
        return begun, {account_id: known.get(account_id) or gone(account_id) for account_id in wanted}

    def _connection(self, hand: Hand) -> EngineConnection:
        return self._urgent if hand.lane is Lane.URGENT else self._others

    def _pace_of(self, lane: Lane) -> Pace:
        return self._paces[self._urgent if lane is Lane.URGENT else self._others]

    def _request(
        self, pauses: pausing.Pauses, hand: Hand, window: Window, n: int, ids: tuple[str, ...], *, solitary: bool
    ) -> Request:
        room = window.room(n, hand.lane, self._at_rest())
        return Request(
            channel=hand.channel,
            lane=hand.lane,
            n=n,
            lease_seconds=lease_seconds(hand.channel),
            worker=self._worker,
            task_id=hand.task_id,
            pauses=pauses,
            room=room,
            # More than an account may take go by turn.
            ids=ids if len(ids) <= room.least else (),
            solitary=solitary,
        )

    def _at_rest(self) -> list[int]:
        now = time.monotonic()
        with self._lock:
            self._resting = {account: until for account, until in self._resting.items() if until > now}
            return list(self._resting)

    def _paused(self, connection: EngineConnection) -> pausing.Pauses:
        now = time.monotonic()
        pauses = self._pauses  # another thread may forget them
        if pauses is None or now - pauses[0] > timings().pause_cache_seconds:
            with connection.transaction() as cursor:
                pauses = self._pauses = (now, lineage.pauses(cursor))
        return pauses[1]

    def _pauses_age(self) -> float:
        pauses = self._pauses
        return time.monotonic() - pauses[0] if pauses is not None else 0.0


def _bounds(accounts: Mapping[int, LiveAccount], ids: Iterable[int]) -> dict[int, int]:
    """How many calls at once each of the accounts ``ids`` may have by its provider."""
    known = {each: accounts[each].provider for each in set(ids) if each in accounts}
    return {each: provider.window for each, provider in known.items() if provider is not None}
