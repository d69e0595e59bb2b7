"""What is ended when its time is over, whoever waits for it: one thread for all of a process, where timers cost one each.

Used for the bodies of requests (``deliveries.api.bodies``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

#: Something ends so much later than it should, at most.
LOOK_SECONDS = 0.25


class Deadlines:
    """Those of one process. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = count()
        self._ends: dict[int, tuple[float, Callable[[], None]]] = {}
        self._newest = -1
        self._resting = True
        self._thread: threading.Thread | None = None
        self._pid = 0

    @contextmanager
    def within(self, seconds: float, end: Callable[[], None]) -> Iterator[None]:
        """Call ``end``, in another thread, if the block is not over after ``seconds``."""
        number = next(self._numbers)
        self._ends[number] = time.monotonic() + seconds, end
        self._newest = number
        if self._resting or self._pid != os.getpid():  # else it looks by itself
            with self._changed:
                self._start()
                self._changed.notify()
        try:
            yield
        finally:
            self._ends.pop(number, None)

    def _start(self) -> None:
        # A forked process inherits no thread.
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="chaski-deadlines", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        seen = -1
        while True:
            with self._changed:
                # Whoever begins now sees that it rests, or is seen itself.
                self._resting = True
                self._resting = self._newest == seen and not self._ends
                seen = self._newest
                self._changed.wait(None if self._resting else LOOK_SECONDS)
                self._resting = False
            self._end(time.monotonic())

    def _end(self, now: float) -> None:
        for number, (until, end) in self._ends.copy().items():
            if until <= now and self._ends.pop(number, None) is not None:
                end()


deadlines = Deadlines()
