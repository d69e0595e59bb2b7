"""The tasks at work in one process, and what each of them did. Used by the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaski.vocabulary import Lane, Status
from deliveries.delivery.window import Window


@dataclass(slots=True)
class Tally:
    """What one task did; stored as its result."""

    claimed: int = 0
    sent: int = 0
    queued: int = 0
    failed: int = 0
    in_doubt: int = 0
    other: int = 0
    in_flight: int = 0

    def count(self, status: Status) -> None:
        """Count one settled message by where it went."""
        name = str(status) if str(status) in {"sent", "queued", "failed", "in_doubt"} else "other"
        setattr(self, name, getattr(self, name) + 1)


@dataclass(slots=True)
class Hand:
    """One task at work on a channel; wakes when its results are in or when somebody rings for its channel."""

    channel: str
    lane: Lane
    task_id: str
    tally: Tally = field(default_factory=Tally)
    rung: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def ring(self) -> None:
        """Something new is due."""
        with self.changed:
            self.rung = True
            self.changed.notify_all()

    def claimed(self, messages: int) -> None:
        """So many are its own now."""
        with self.changed:
            self.tally.claimed += messages
            self.tally.in_flight += messages

    def finish(self, status: Status) -> None:
        """One of its messages is recorded."""
        with self.changed:
            self.tally.in_flight -= 1
            self.tally.count(status)
            if not self.tally.in_flight:
                self.changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait for a ring or for the last result, at most ``seconds``; True if there was a ring."""
        with self.changed:
            self.changed.wait_for(lambda: self.rung or not self.tally.in_flight, seconds)
            return self._hear()

    def wait_for_room(self, window: Window, full: Iterable[int], seconds: float) -> bool:
        """Wait until one of the accounts ``full`` has room, or for a ring that wakes ``window``; at most ``seconds``.

        True if there was a ring.
        """
        # Other threads ask, too, what it waits for: the ring is used up here alone.
        window.wait_for_room(full, seconds, lambda: self.rung)
        with self.changed:
            return self._hear()

    def _hear(self) -> bool:
        rung, self.rung = self.rung, False
        return rung
