"""How many messages may be under way: one window per channel and process, one place for suspects. Used by the engine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import ceil

from chaski.vocabulary import Lane
from deliveries.delivery.account_window import START, AccountWindow
from deliveries.delivery.turns import Room

#: Of all places, what the most urgent lane alone may take, and the stretch of an account's limit for it.
KEPT, HEADROOM = 0.1, 1.25
#: A claim waits until so much of the window is free, so that claims are large under load; but no longer than so.
WORTHWHILE, PATIENCE_SECONDS = 0.25, 0.2


class Window:
    """``size`` places for messages from their claim to their record, and each account's own window. Thread-safe.

    ``most`` bounds each account's until its own bound is known; it follows the provider's answers if it ``follows``.
    Whatever an account may, it takes at most a third of what is free: the next one finds places, though several of the
    others hang.
    """

    def __init__(self, size: int, most: int, *, follows: bool = True) -> None:
        self.size = size
        self._free = size
        self._most = most
        self._follows = follows
        self._start = min(START, most) if follows else most
        self._accounts: dict[int, AccountWindow] = {}
        self._changed = threading.Condition()
        self._awaited: list[Callable[[], bool]] = []

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.size - self._free

    def take(self, wanted: int, lane: Lane = Lane.URGENT, *, patience: float = 0.0) -> int:
        """As many of ``wanted`` places as ``lane`` may have, perhaps none; waits up to ``patience`` seconds for a number
        that is worth a claim."""
        kept = self._kept(lane)
        enough = 1 if lane is Lane.URGENT else min(wanted, ceil(self.size * WORTHWHILE))
        with self._changed:
            if patience and self._free - kept < enough:
                self._wait(lambda: self._free - kept >= enough, patience)
            granted = max(0, min(wanted, self._free - kept))
            self._free -= granted
            return granted

    def _kept(self, lane: Lane) -> int:
        return 0 if lane is Lane.URGENT else ceil(self.size * KEPT)

    def give(self, places: int = 1) -> None:
        """Give places back."""
        with self._changed:
            self._free += places
            self._tell()

    def room(self, granted: int, lane: Lane, resting: Iterable[int]) -> Room:
        """What each account may take of ``granted`` places; ``resting`` ones nothing."""
        with self._changed:
            share = ceil((self._free + granted - self._kept(lane)) / 3)
            free = {known: min(share, _free(each, lane)) for known, each in self._accounts.items()}
        full = frozenset(known for known, calls in free.items() if not calls)
        some = {known: calls for known, calls in free.items() if calls}
        return Room(min(self._start, share), some, full, frozenset(resting))

    def begin(self, accounts: Iterable[int], bounds: Mapping[int, int] | None = None) -> None:
        """A message of each of ``accounts`` (one for each message) is claimed; ``bounds`` are those of their providers."""
        with self._changed:
            for account_id, calls in Counter(accounts).items():
                if account_id not in self._accounts:
                    most = (bounds or {}).get(account_id, self._most)
                    self._accounts[account_id] = AccountWindow(most, START if self._follows else most)
                self._accounts[account_id].begin(calls)

    def leave(self, account_id: int) -> None:
        """One of them was not sent after all."""
        with self._changed:
            self._accounts[account_id].leave()
            self._tell()

    def answered(self, account_id: int, seconds: float, *, bad: bool) -> None:
        """One of them was sent; see ``AccountWindow.answered``."""
        with self._changed:
            account = self._accounts[account_id]
            if self._follows:
                account.answered(seconds, bad=bad)
            else:
                account.leave()
            self._tell()

    def wait_for_room(self, full: Iterable[int], seconds: float, otherwise: Callable[[], bool]) -> None:
        """Wait until one of the accounts ``full`` is so no more, or ``otherwise`` after a ``wake``; at most ``seconds``."""
        with self._changed:
            waited_for = [self._accounts[account_id] for account_id in full]
            self._wait(lambda: otherwise() or any(not each.full for each in waited_for), seconds)

    def wake(self) -> None:
        """Let who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        self._awaited.append(until)
        try:
            self._changed.wait_for(until, seconds)
        finally:
            self._awaited.remove(until)

    def _tell(self) -> None:
        # For each of thousands of messages a second: a thread is woken only for what it waits for.
        if any(until() for until in self._awaited):
            self._changed.notify_all()


def _free(each: AccountWindow, lane: Lane) -> int:
    """Calls that may begin in ``lane``: none while an account is full, but for the most urgent."""
    if lane is Lane.URGENT:
        return each.free(headroom=HEADROOM)
    return 0 if each.full else each.free()


class Suspects:
    """The one place in a process for a message that two vanished workers had in flight. Thread-safe.

    Sent alone, it can be told from the innocent: if this worker vanishes too, the message did it.
    """

    #: Between two looks at a channel that had none: there hardly ever is one, and a look costs a statement.
    LOOK_SECONDS = 0.5

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._look_at: dict[tuple[str, Lane], float] = {}

    def take(self, channel: str, lane: Lane) -> bool:
        """Take the place to look for a suspect; False when it is taken or one has just looked there."""
        with self._lock:
            if self._taken or time.monotonic() < self._look_at.get((channel, lane), 0.0):
                return False
            self._taken = True
            return True

    def give(self) -> None:
        """The suspect is settled, or could not be claimed: look again at once."""
        with self._lock:
            self._taken = False

    def none(self, channel: str, lane: Lane) -> None:
        """There was none: look again later."""
        with self._lock:
            self._taken = False
            self._look_at[channel, lane] = time.monotonic() + self.LOOK_SECONDS
