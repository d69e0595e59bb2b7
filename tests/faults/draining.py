"""How fast a large backlog is drained, window by window, and what each message costs meanwhile. Used by F39."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.faults.system import RELAYS, WORKERS, FaultSystem
from tests.processes.system import Tenant

WINDOW_SECONDS, MOST_WINDOWS = 3.0, 300


def waits(system: FaultSystem, shop: Tenant, at_most: int) -> bool:
    """Has the queue come down to ``at_most`` messages of ``shop``? Never counts more than that."""
    sql = "SELECT count(*) FROM (SELECT FROM pending WHERE service_id = %s LIMIT %s) AS counted"
    return int(system.query(sql, shop.id, at_most + 1)[0][0]) <= at_most


@dataclass(frozen=True)
class Window:
    """A time of the drain, by the database's clock, and the processor time of Chaski and its database meanwhile.

    ``yardstick_seconds``: what a fixed piece of work took in it, for a shared machine is faster in one minute than in the next.
    """

    begin: datetime
    end: datetime
    processor_seconds: float
    yardstick_seconds: float
    pages: int


@dataclass(frozen=True)
class Pace:
    """How fast a backlog was drained: by the clock, and for as much processor time as a thousand yardsticks take.

    The latter depends less on what else the machine does and on how fast it is at the moment. ``pages``: how many pages the
    database looked at for a message, autovacuum apart; that depends on neither.
    """

    by_clock: float
    by_work: float
    pages: float


def windows(system: FaultSystem, shop: Tenant, at_most: int) -> list[Window]:
    """One after the other until ``at_most`` messages of ``shop`` are left. What was sent in them is counted later: counting is a
    load itself."""
    found: list[Window] = []
    while not waits(system, shop, at_most):
        assert len(found) < MOST_WINDOWS, f"more than {at_most} were left after {len(found)} windows"
        found.append(window(system))
    return found


def window(system: FaultSystem) -> Window:
    """Over some seconds."""
    begin, used, looked_at = database_time(system), processor_seconds(system), pages(system)
    time.sleep(WINDOW_SECONDS / 2)  # a rate needs a time
    yardstick = yardstick_seconds()
    time.sleep(WINDOW_SECONDS / 2)
    end, now = database_time(system), processor_seconds(system)
    spent = sum(seconds - used.get(pid, 0.0) for pid, seconds in now.items())
    return Window(begin, end, spent, yardstick, pages(system) - looked_at)


def pages(system: FaultSystem) -> int:
    """How many pages of tables and indexes sessions have looked at so far, wherever they found them."""
    sql = (
        "SELECT sum(hits + reads)::bigint FROM pg_stat_io WHERE backend_type = 'client backend' AND object = 'relation'"
    )
    return int(system.query(sql)[0][0])


def yardstick_seconds() -> float:
    """What a fixed piece of work takes of the processor, under the load of the moment."""
    begun = time.process_time()
    sum(number * number % 7 for number in range(400_000))
    return time.process_time() - begun


def database_time(system: FaultSystem) -> datetime:
    """What ``sent_at`` is written with."""
    found: datetime = system.query("SELECT chaski_now()")[0][0]
    return found


def usual_pace(system: FaultSystem, shop: Tenant, found: list[Window]) -> Pace:
    """What a quarter of the windows reaches, for autovacuum comes in rounds and has the same two cores; and the usual pages."""
    paces = [_pace(system, shop, each) for each in found]
    return Pace(
        by_clock=_upper_quartile(each.by_clock for each in paces),
        by_work=_upper_quartile(each.by_work for each in paces),
        pages=statistics.median(each.pages for each in paces),
    )


def _upper_quartile(figures: Iterable[float]) -> float:
    return statistics.quantiles(figures, n=4)[2]


def _pace(system: FaultSystem, shop: Tenant, found: Window) -> Pace:
    """By what the rows say."""
    sql = "SELECT count(*) FROM message WHERE service_id = %s AND sent_at >= %s AND sent_at < %s"
    sent = max(1, int(system.query(sql, shop.id, found.begin, found.end)[0][0]))
    seconds = (found.end - found.begin).total_seconds()
    by_work = 1_000 * sent * found.yardstick_seconds / found.processor_seconds
    return Pace(sent / seconds, by_work, found.pages / sent)


def processor_seconds(system: FaultSystem) -> dict[int, float]:
    """What each worker, relay and process of the database has used so far.

    Without autovacuum, which comes in rounds longer than the time that is measured, and after the filling too.
    """
    postmaster = system.postgres.process.pid
    ours = {postmaster, *(system.pids()[name] for name in (*WORKERS, *RELAYS))}
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            counts = int(folder.name) in ours or int(fields[1]) == postmaster
            if counts and "autovacuum worker" not in (folder / "cmdline").read_text():
                found[int(folder.name)] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return found
