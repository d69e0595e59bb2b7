"""How many calls may be under way: one window per channel and process, one place for suspects. Used by the engine."""

from __future__ import annotations

import threading
import time


class Window:
    """``size`` places, taken before a claim and given back when a result is recorded. Thread-safe."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.size - self._free

    def take(self, wanted: int) -> int:
        """As many of ``wanted`` places as are free, perhaps none; never waits."""
        with self._changed:
            granted = min(wanted, self._free)
            self._free -= granted
            return granted

    def give(self, places: int) -> None:
        """Give places back."""
        if places:
            with self._changed:
                self._free += places
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until something is given back, at most ``seconds``."""
        with self._changed:
            if not self._free:
                self._changed.wait(seconds)


class Suspects:
    """The one place in a process for a message that two vanished workers had in flight. Thread-safe.

    Sent alone, it can be told from the innocent: if this worker vanishes too, the message did it.
    """

    #: Between two looks at a channel that had none: there hardly ever is one, and a look costs a statement.
    LOOK_SECONDS = 0.25

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._look_at: dict[str, float] = {}

    def take(self, channel: str) -> bool:
        """Take the place to look for a suspect on ``channel``; False when it is taken or one has just looked."""
        with self._lock:
            if self._taken or time.monotonic() < self._look_at.get(channel, 0.0):
                return False
            self._taken = True
            return True

    def give(self) -> None:
        """The suspect is settled, or could not be claimed: look again at once."""
        with self._lock:
            self._taken = False

    def none(self, channel: str) -> None:
        """There was none on ``channel``: look again later."""
        with self._lock:
            self._taken = False
            self._look_at[channel] = time.monotonic() + self.LOOK_SECONDS
