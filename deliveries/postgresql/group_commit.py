"""Group commit: what several threads of a process want written at one moment is written by one of them, in one statement.

A commit waits for the disk, and a statement costs more than a row of it. The first to come writes at once and alone, so nobody
waits who has no company; whoever comes meanwhile goes with the next. Used where single requests write single things: one
message (``deliveries.intake``), one receipt (``deliveries.api.inbound``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from django.db import DatabaseError, connection

from deliveries.sql import is_away

#: What a single item may be to blame for: the database refuses it, or it has no form that can be sent. Anything else may have
#: come after the commit, which must not be made twice.
_OF_ONE = (DatabaseError, ValueError, TypeError)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Interrupted(RuntimeError):
    """Nobody knows whether the item was written."""


class _Place(Generic[Item, Answer]):
    """One thread's item, and what came of it."""

    __slots__ = ("_called", "answer", "done", "error", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.done = False
        self._called = threading.Lock()
        self._called.acquire()

    def wait(self) -> None:
        """Until the item is written, or its thread is called to write."""
        self._called.acquire()

    def call(self) -> None:
        self._called.release()

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise Interrupted("the thread that wrote it was ended; it may be written")
        return self.answer


class GroupCommit(Generic[Item, Answer]):
    """Writes items by ``write``, which takes several and gives an answer for each, in their order. Thread-safe.

    ``write`` commits all of them or raises, and then none is kept. Where it blames the items, each is written alone, so that
    one that cannot be written spoils no other.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Answer]]) -> None:
        self._write_all = write
        self._lock = threading.Lock()
        self._waiting: list[_Place[Item, Answer]] = []
        self._busy = False

    def write(self, item: Item) -> Answer:
        """Write ``item``; returns after its commit. Raises what ``write`` raised for it.

        Within a transaction it is the caller's, and nobody goes with it.
        """
        if connection.in_atomic_block:
            return self._write_all([item])[0]
        place: _Place[Item, Answer] = _Place(item)
        with self._lock:
            self._waiting.append(place)
            called, self._busy = not self._busy, True
        if not called:
            place.wait()
        if not place.done:
            self._lead()
        return place.result()

    def _lead(self) -> None:
        """Write what waits, one's own among it, and call the next to write."""
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            self._write(group)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            for place in group:
                place.done = True
                place.call()
            if following is not None:
                following.call()

    def _write(self, group: Sequence[_Place[Item, Answer]]) -> None:
        try:
            answers = self._write_all([place.item for place in group])
        except Exception as error:  # noqa: BLE001 - it goes to the threads whose items they are
            if len(group) > 1 and isinstance(error, _OF_ONE) and not is_away(error):
                for place in group:
                    self._write([place])
                return
            for place in group:
                place.error = error
            return
        for place, answer in zip(group, answers, strict=True):
            place.answer = answer
