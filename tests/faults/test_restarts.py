"""F9-F10: processes that are asked to end: a rolling restart, a cold shutdown, a grace that is too short."""

from __future__ import annotations

import signal

import pytest

from tests.faults.evidence import Evidence
from tests.faults.load import Load
from tests.faults.system import RELAYS, WORKERS, FaultSystem
from tests.faults.watching import CALL_SECONDS, all_sent, busy_worker, explained, once_and_without_doubt, row, vanished
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

#: Calls that may be under way in one process on one channel.
WINDOW = 200


@row("F9", "SIGTERM to workers, relays and web, one after the other, under load", "no loss, none in doubt")
def test_a_rolling_restart_under_load_puts_nothing_in_doubt(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    with Load(shop, channel="webhook", rows=20) as load:
        for name in (*WORKERS, *RELAYS, "web"):
            if name in WORKERS:
                wait_for(lambda victim=name: busy_worker(system) == victim, 20, f"calls under way in {name}")
            system.restarted(name, system.kill(name, signal.SIGTERM))
        system.workers_are_ready()
        load.more(50, 60)
    with seen.recovery():
        all_sent(system, load.told)
    once_and_without_doubt(system, shop, load.told)
    seen(f"{len(load.told)} sent once each, none in doubt; the client met {dict(load.errors) or 'no error'}")


@row("F10", "SIGQUIT, and SIGTERM with SIGKILL before the calls end", "at most the calls under way in doubt")
def test_a_worker_that_gets_no_time_leaves_its_calls_in_doubt_and_no_more(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    with Load(shop, channel="webhook", rows=20) as load:
        for number in (signal.SIGQUIT, signal.SIGTERM):
            name = wait_for(lambda: busy_worker(system), 20, "calls under way")
            pid = system.kill(name, number)
            system.kill(name)  # the supervisor's grace is over
            system.restarted(name, pid)
        load.more(50)
    with seen.recovery():
        all_sent(system, load.told)
    explained(system, shop, load.told)
    doubts = vanished(system, load.told)
    assert 0 < doubts <= 2 * WINDOW
    seen(f"{len(load.told)} sent, {doubts} in doubt in between")


@pytest.mark.thorough
@row("F10", "SIGQUIT with calls under way", "the process ends by itself; at most the calls under way in doubt")
def test_a_worker_told_to_quit_ends_by_itself(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    ids = shop.send_many(100, "webhook")
    name = wait_for(lambda: busy_worker(system), 20, "calls under way")
    with seen.recovery():
        pid = system.kill(name, signal.SIGQUIT)
        wait_for(lambda: system.pids()[name] != pid, 30, "the end of the process")
    all_sent(system, ids)
    explained(system, shop, ids)
    doubts = vanished(system, ids)
    seen(f"ended by itself; {len(ids)} sent, {doubts} in doubt in between")
