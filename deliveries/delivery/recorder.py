"""Recording results in batches: every twenty milliseconds, every 250 rows, or at once when nothing else is under way.

One thread per worker process. What the database cannot take now is kept and tried again; a row that it will never take
is bisected out, so that it does not drag its neighbours.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from deliveries.conf import limits, timings
from deliveries.delivery.crashes import crash_point
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.settle import Settlement, settle

log = structlog.get_logger(__name__)
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)


@dataclass(frozen=True, slots=True)
class Result:
    """A settlement to write, and whom to tell when it is written."""

    settlement: Settlement
    done: Callable[[], None]


class Recorder:
    """Takes results from the loop and writes them. ``in_flight`` tells how many more may come."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._queue: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._in_flight = in_flight
        self._connection = EngineConnection()
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
            batch = self._collect()
            try:
                self._write(batch)
            except Exception:  # this thread is the process's only one that records: it must not end
                log.exception("results_not_written", results=len(batch))
            for result in batch:
                result.done()

    def _collect(self) -> list[Result]:
        batch = [self._queue.get()]
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
        while True:
            try:
                self._settle([result.settlement for result in batch])
                crash_point("after_record")
                return
            except _AWAY as error:
                log.warning("results_wait_for_the_database", results=len(batch), error=type(error).__name__)
                time.sleep(wait)
                wait = min(wait * 2, 5.0)
            except psycopg.Error:
                self._bisect(batch)
                return

    def _bisect(self, batch: Sequence[Result]) -> None:
        if len(batch) == 1:
            # The lease will end and the sweep will decide: the message stays visible.
            log.exception("result_not_writable", message_id=str(batch[0].settlement.id))
            return
        middle = len(batch) // 2
        self._write(batch[:middle])
        self._write(batch[middle:])

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        with self._connection.transaction() as cursor:
            mine = settle(cursor, settlements)
        fenced = [settlement for settlement in settlements if settlement.id not in mine]
        for settlement in fenced:
            log.warning("result_came_after_its_lease", message_id=str(settlement.id), attempt=settlement.number)
