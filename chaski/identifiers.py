"""Message identifiers, minted by the client before anything goes over the network. Called by the client and
by batches.

UUID version 7 as RFC 9562 lays it out: 48 bits of Unix milliseconds, then 74 random bits, of which each id of
one millisecond has more than the one before (method 2, "monotonic random", section 6.2).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable

_TAIL_BITS = 74
_STEP_BYTES = 4


class Mint:
    """A source of UUIDv7s that only ever grow within this process. Safe to share between threads and after a
    fork.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def __call__(self) -> uuid.UUID:
        with self._lock:
            self._milliseconds, self._tail = self._next()
            return _assemble(self._milliseconds, self._tail)

    def _reset(self) -> None:
        """Start afresh: a child must not go on with its parent's sequence, nor with a lock some lost thread
        held.
        """
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._tail = 0

    def _next(self) -> tuple[int, int]:
        now = self._clock() // 1_000_000
        if now > self._milliseconds:
            return now, _fresh_tail()
        tail = self._tail + 1 + int.from_bytes(os.urandom(_STEP_BYTES), "big")
        if tail >> _TAIL_BITS:
            return self._milliseconds + 1, _fresh_tail()
        return self._milliseconds, tail


def _fresh_tail() -> int:
    """Random bits with the highest one clear, so that there is room to count upwards."""
    return int.from_bytes(os.urandom(10), "big") & ((1 << (_TAIL_BITS - 1)) - 1)


def _assemble(milliseconds: int, tail: int) -> uuid.UUID:
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return uuid.UUID(int=(milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low)


#: A new UUIDv7: the standard library's where it has one (Python 3.14), else ours.
uuid7: Callable[[], uuid.UUID] = getattr(uuid, "uuid7", None) or Mint()
