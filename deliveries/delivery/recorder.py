"""Recording results in batches: every twenty milliseconds, every 250 rows, or at once when nothing else is under way.

One thread per worker process. What the database cannot take now is kept on the disk and in memory and tried again; a row
that it will never take is bisected out and set aside, so that it does not drag its neighbours.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog
from django.conf import settings

from deliveries.conf import limits, timings
from deliveries.delivery.crashes import crash_point
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.replay import Replay
from deliveries.delivery.settle import Settlement, settle
from deliveries.delivery.spill import Spill
from deliveries.sql import is_away

log = structlog.get_logger(__name__)
#: Ids in one line of the log; the attempts of all of them keep the fact.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Result:
    """A settlement to write, and whom to tell when it is written."""

    settlement: Settlement
    done: Callable[[], None]


class Recorder:
    """Takes results from the loop and writes them. ``in_flight`` tells how many more may come."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._queue: queue.SimpleQueue[Result] = queue.SimpleQueue()
        #: What came while the database was away; bounded by the windows, whose places are given back by ``done`` only.
        self._held: deque[Result] = deque()
        self._in_flight = in_flight
        self._connection = EngineConnection()
        folder = Path(settings.CHASKI_SPILL)
        self._spill = Spill(folder)
        self._replay = Replay(folder, self._connection)
        self._replayed_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="chaski-recorder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Does its thread still record?"""
        return self._thread.is_alive()

    def put(self, result: Result) -> None:
        """Write ``result`` soon. Never blocks."""
        self._queue.put(result)

    def _run(self) -> None:
        while True:
            self._settle_orphans()
            self._record(self._collect())

    def _record(self, batch: Sequence[Result]) -> None:
        try:
            self._write(batch)
        except Exception as error:  # this thread is the process's only one that records: it must not end
            log.exception("results_not_written", results=len(batch))
            for result in batch:
                self._spill.reject(result.settlement, type(error).__name__)
        for result in batch:
            result.done()
        if not self._held:
            self._spill.clear()

    def _collect(self) -> list[Result]:
        if self._held:
            return [self._held.popleft() for _ in range(min(len(self._held), limits().record_rows))]
        return self._arrived(timings().replay_seconds)

    def _arrived(self, seconds: float) -> list[Result]:
        """The next results, as many as come together; none when none came in ``seconds``."""
        try:
            batch = [self._queue.get(timeout=seconds)]
        except queue.Empty:
            return []
        until = time.monotonic() + timings().record_seconds
        while len(batch) < limits().record_rows:
            left = until - time.monotonic()
            alone = self._in_flight() <= len(batch)
            try:
                batch.append(
                    self._queue.get(timeout=max(0.0, left)) if left > 0 and not alone else self._queue.get_nowait()
                )
            except queue.Empty:
                break
        return batch

    def _write(self, batch: Sequence[Result]) -> None:
        wait = 0.1
        while batch:
            try:
                self._settle([result.settlement for result in batch])
                crash_point("after_record")
                return
            except psycopg.Error as error:
                if not is_away(error):
                    self._bisect(batch, error)
                    return
                self._spill.keep(result.settlement for result in batch)
                log.warning(
                    "results_wait_for_the_database",
                    results=len(batch) + len(self._held),
                    error=type(error).__name__,
                    sqlstate=error.sqlstate,
                )
                self._wait(wait)
                wait = min(wait * 2, timings().record_retry_seconds)

    def _wait(self, seconds: float) -> None:
        """Let time pass. What comes meanwhile is kept as safely as what came before."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if arrived := self._arrived(left):
                self._held.extend(arrived)
                self._spill.keep(result.settlement for result in arrived)

    def _bisect(self, batch: Sequence[Result], error: psycopg.Error) -> None:
        if len(batch) == 1:
            # The lease will end and the sweep will decide: the message stays visible.
            reason = f"{type(error).__name__} {error.sqlstate or ''}".strip()
            log.error("result_not_writable", message_id=str(batch[0].settlement.id), reason=reason)
            self._spill.reject(batch[0].settlement, reason)
            return
        middle = len(batch) // 2
        self._write(batch[:middle])
        self._write(batch[middle:])

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        crash_point("before_record")
        with self._connection.transaction() as cursor:
            mine = settle(cursor, settlements)
        fenced = [str(settlement.id) for settlement in settlements if settlement.id not in mine]
        if fenced:
            log.warning("results_came_after_their_lease", results=len(fenced), message_ids=fenced[:SHOWN])

    def _settle_orphans(self) -> None:
        if self._held or time.monotonic() - self._replayed_at < timings().replay_seconds:
            return
        self._replayed_at = time.monotonic()
        try:
            # Open before it is needed: a database that takes no more connections still records on this one.
            with self._connection.transaction() as cursor:
                cursor.execute("SELECT 1")
            self._replay.run()
        except psycopg.Error as error:
            log.warning("recorder_waits_for_the_database", error=type(error).__name__)
        except Exception:  # as above
            log.exception("spill_not_settled")
