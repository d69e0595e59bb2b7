"""Recording results in batches: of 250 rows, of half of what is under way, or of what came in fifty milliseconds.

Urgent ones are written at once. One thread per worker process. What the database cannot take now is kept on the disk and in
memory and tried again; a row that it will never take is bisected out and set aside, and one that somebody holds is passed
over until it is free, so that neither drags its neighbours.
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
from deliveries.delivery.halving import ROW_ERRORS, by_halves, reason
from deliveries.delivery.locked import be_impatient, free, prolong
from deliveries.delivery.replay import UNKNOWN, Replay, unknown
from deliveries.delivery.settle import Settlement, settle
from deliveries.delivery.spill import Spill
from deliveries.sql import Cursor, is_away, is_lock_wait, is_not_now, is_unlike

log = structlog.get_logger(__name__)
#: Beside so many others a result is not waited for: statements for one message each are no load yet.
FEW = 4
#: Ids in one line of the log; the attempts of all of them keep the fact.
SHOWN = 20


def _ids(settlements: Sequence[Settlement]) -> list[str]:
    return [str(settlement.id) for settlement in settlements[:SHOWN]]


@dataclass(frozen=True, slots=True)
class Result:
    """A settlement to write, and whom to tell when it is written."""

    settlement: Settlement
    done: Callable[[], None]
    #: Written without waiting for others.
    urgent: bool = False


class Recorder:
    """Takes results from the loop and writes them. ``in_flight`` tells how many more may come."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._queue: queue.SimpleQueue[Result] = queue.SimpleQueue()
        #: What came while the database was away; bounded by the windows, whose places are given back by ``done`` only.
        self._waiting: deque[Result] = deque()
        #: Those of which somebody holds a row; bounded in the same way.
        self._passed_over: list[Result] = []
        self._looked_at = float("-inf")
        self._look_seconds = timings().locked_seconds
        #: Errors of a database that is not what this code expects, each said once until nothing waits any more.
        self._said: set[str | None] = set()
        self._in_flight = in_flight
        self._connection = EngineConnection()
        folder = Path(settings.CHASKI_SPILL)
        self._spill = Spill(folder)
        self._replay = Replay(folder, self._connection)
        self._replay_at = float("-inf")
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
            self._look_again()

    def _record(self, batch: Sequence[Result]) -> None:
        self._guarded(self._write, batch)

    def _guarded(self, write: Callable[[Sequence[Result]], object], batch: Sequence[Result]) -> None:
        """``write`` the first result of each message; a second one, of a later attempt, comes after it."""
        firsts = list({result.settlement.id: result for result in reversed(batch)}.values())[::-1]
        if len(firsts) < len(batch):
            self._waiting.extend(result for result in batch if result not in firsts)
        try:
            write(firsts)
        except Exception as error:  # this thread is the process's only one that records: it must not end
            log.exception("results_not_written", results=len(firsts))
            for result in firsts:
                self._spill.reject(result.settlement, type(error).__name__)
        self._done(batch)

    def _done(self, batch: Sequence[Result]) -> None:
        """Tell of those of ``batch`` that need no more care here."""
        kept = {id(result) for result in (*self._waiting, *self._passed_over)}
        for result in batch:
            if id(result) not in kept:
                result.done()
        if batch and not kept:
            self._spill.clear()
            self._said.clear()

    def _collect(self) -> list[Result]:
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), limits().record_rows))]
        until_replay = max(0.0, self._replay_at - time.monotonic())
        return self._arrived(min(until_replay, timings().locked_seconds) if self._passed_over else until_replay)

    def _arrived(self, seconds: float) -> list[Result]:
        """The next results, as many as come together; none when none came in ``seconds``."""
        try:
            batch = [self._queue.get(timeout=seconds)]
        except queue.Empty:
            return []
        until = time.monotonic() + timings().record_seconds
        while len(batch) < limits().record_rows:
            left = until - time.monotonic()
            # The fewer are under way, the less there is to wait for.
            enough = batch[-1].urgent or len(batch) * 2 >= self._in_flight() - FEW
            try:
                batch.append(self._queue.get_nowait() if enough or left <= 0 else self._queue.get(timeout=left))
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
            except ROW_ERRORS as error:
                self._spill.keep(result.settlement for result in batch)
                rest = self._rest(batch, error)
                if not rest:
                    return
                self._wait(wait)
                wait = min(wait * 2, timings().record_retry_seconds)
                batch = self._fewer(rest) if is_lock_wait(error) else rest

    def _rest(self, batch: Sequence[Result], error: Exception) -> Sequence[Result]:
        """What of ``batch`` waits for the database, once ``error`` came of it; of the rest each is written or cared for."""
        if is_away(error) and not is_lock_wait(error):
            self._say(error, len(batch) + len(self._waiting))
            return batch
        before = len(self._passed_over)
        away, left = self._write_by_halves(batch)
        if away is not None:
            self._say(away, len(left) + len(self._waiting))
        elif len(self._passed_over) > before and not is_unlike(error):
            waiting = [result.settlement for result in self._passed_over]
            log.warning("results_wait_for_locked_rows", results=len(waiting), message_ids=_ids(waiting))
        return left

    def _write_by_halves(self, batch: Sequence[Result]) -> tuple[Exception | None, Sequence[Result]]:
        """Write those of ``batch`` that can be written now, without waiting, and pass the others over.

        An error and what is not written for it, where the database is away.
        """
        found = by_halves(self._write_free, [batch])
        slower = min(self._look_seconds * 2, timings().record_retry_seconds)
        for result, error in found.refused:
            # The lease will end and the sweep will decide: the message stays visible.
            log.error("result_not_writable", message_id=str(result.settlement.id), reason=reason(error))
            self._spill.reject(result.settlement, reason(error))
        if found.away is not None:
            return found.away, found.waiting
        self._passed_over += found.waiting
        self._look_seconds = timings().locked_seconds
        if found.stuck is not None and is_unlike(found.stuck):
            self._say(found.stuck, len(found.waiting))
            if not found.written:  # people must mend that, and each failure costs a connection
                self._look_seconds = slower
        return None, []

    def _write_free(self, batch: Sequence[Result]) -> None:
        with self._connection.transaction() as cursor:
            going = free(cursor, [result.settlement for result in batch])
            lost = self._settle_in(cursor, going)
        self._set_aside(lost)
        gone = {row.id for row in going}
        self._passed_over += [result for result in batch if result.settlement.id not in gone]

    def _fewer(self, batch: Sequence[Result]) -> Sequence[Result]:
        """What to try next, where not even free rows can be found: half of it; of one, what waits behind it.

        A database that is only slow gets through with less, and one that takes nothing is not asked more often for that.
        """
        if len(batch) == 1 and self._waiting:
            self._waiting.append(batch[0])
            return []
        middle = (len(batch) + 1) // 2
        self._waiting.extendleft(reversed(batch[middle:]))
        return batch[:middle]

    def _look_again(self) -> None:
        """Write what was passed over, once nobody holds it any more."""
        if not self._passed_over or time.monotonic() - self._looked_at < self._look_seconds:
            return
        batch, self._passed_over = self._passed_over, []
        self._guarded(self._pass_over, batch)
        self._prolong([result.settlement for result in self._passed_over])
        self._looked_at = time.monotonic()

    def _pass_over(self, batch: Sequence[Result]) -> None:
        _, left = self._write_by_halves(batch)
        self._passed_over += left

    def _prolong(self, settlements: Sequence[Settlement]) -> None:
        """Let the sweep not be quicker than the next look, once somebody lets go."""
        if not settlements:
            return
        try:
            with self._connection.transaction() as cursor:
                prolong(cursor, settlements)
        except psycopg.Error as error:
            # The next look tries again, long before they end; an outage prolongs them by itself.
            if not is_not_now(error):
                log.error("leases_not_prolonged", leases=len(settlements), error=type(error).__name__)

    def _say(self, error: Exception, results: int) -> None:
        """Tell people what results wait for: an outage each time, what somebody must mend once."""
        kind, state = type(error).__name__, getattr(error, "sqlstate", None)
        if is_away(error):
            log.warning("results_wait_for_the_database", results=results, error=kind, sqlstate=state)
        elif state not in self._said:
            self._said.add(state)
            said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
            log.error("results_wait_for_another_schema", results=results, error=kind, sqlstate=state, reason=said)

    def _wait(self, seconds: float) -> None:
        """Let time pass. What comes meanwhile is kept as safely as what came before."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if arrived := self._arrived(left):
                self._waiting.extend(arrived)
                self._spill.keep(result.settlement for result in arrived)

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        crash_point("before_record")
        with self._connection.transaction() as cursor:
            if self._passed_over:
                be_impatient(cursor)  # somebody holds something, and these may want it too
            lost = self._settle_in(cursor, settlements)
        self._set_aside(lost)

    def _settle_in(self, cursor: Cursor, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those of ``settlements`` whose attempts this database does not know; the others are written."""
        mine = settle(cursor, settlements)
        fenced = [settlement for settlement in settlements if settlement.id not in mine]
        lost = unknown(cursor, fenced)
        if late := [settlement for settlement in fenced if settlement not in lost]:
            log.warning("results_came_after_their_lease", results=len(late), message_ids=_ids(late))
        return lost

    def _set_aside(self, lost: Sequence[Settlement]) -> None:
        """Keep ``lost`` for people: the database was restored from before their attempts, of which they are the only proof.

        After the COMMIT: one that failed is repeated, and so would the lines be.
        """
        for settlement in lost:
            self._spill.reject(settlement, UNKNOWN)
        if lost:
            log.error("results_of_unknown_attempts", results=len(lost), message_ids=_ids(lost))

    def _settle_orphans(self) -> None:
        """Settle one of them, so that fresh results come between; all of them in a row of such rounds every so often."""
        if self._waiting or time.monotonic() < self._replay_at:
            return
        try:
            # Open before it is needed: a database that takes no more connections still records on this one.
            with self._connection.transaction() as cursor:
                cursor.execute("SELECT 1")
            if self._replay.step() is not None:
                return  # the next one after what has come meanwhile
        except psycopg.Error as error:
            if is_away(error):
                log.warning("recorder_waits_for_the_database", error=type(error).__name__)
            else:
                self._say(error, 0)
        except Exception:  # as above
            log.exception("spill_not_settled")
        self._replay_at = time.monotonic() + timings().replay_seconds
