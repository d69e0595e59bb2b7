"""How many calls may be under way: one window per channel and process. Used by the engine's hands and its loop."""

from __future__ import annotations

import threading


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
