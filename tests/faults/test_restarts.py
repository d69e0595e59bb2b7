"""F9-F10: processes that are asked to end: a rolling restart, a cold shutdown, a grace that is too short."""

from __future__ import annotations

import signal

import pytest

from tests.faults.evidence import Evidence
from tests.faults.load import Load
from tests.faults.system import RELAYS, WORKERS, FaultSystem
from tests.faults.watching import (
    CALL_SECONDS,
    all_sent,
    busy_worker,
    explained,
    in_doubt,
    once_and_without_doubt,
    open_at,
    row,
)
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]


@row("F9", "SIGTERM to workers, relays and web, one after the other, under load", "no loss, none in doubt")
def test_a_rolling_restart_under_load_puts_nothing_in_doubt(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    with Load(shop, channel="webhook", rows=5) as load:  # so few that no call comes near its deadline of two seconds
        for name in (*WORKERS, *RELAYS, "web"):
            if name in WORKERS:
                wait_for(lambda victim=name: busy_worker(system, 2) == victim, 20, f"calls under way in {name}")
            system.restarted(name, system.kill(name, signal.SIGTERM))
            system.workers_are_ready()  # as who rolls waits; what piled up meanwhile would come near its deadline
        load.more(50, 60)
    with seen.recovery():
        all_sent(system, load.told)
    once_and_without_doubt(system, shop, load.told)
    seen(f"{len(load.told)} sent once each, none in doubt; the client met {dict(load.errors) or 'no error'}")


@row("F10", "SIGTERM, then SIGKILL before the calls end", "claims stop; at most the calls under way in doubt")
def test_a_worker_that_gets_no_time_leaves_its_calls_in_doubt_and_no_more(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    system.vendor.delay(CALL_SECONDS / 2)
    with Load(shop, channel="webhook", rows=5, pause=0.05) as load:
        name = wait_for(lambda: busy_worker(system, 10), 20, "calls under way")
        heard = len(system.heard())
        pid = system.kill(name, signal.SIGTERM)
        wait_for(lambda: says_that_it_stops(system, name, heard), 5, f"{name} to stop")
        ((stopped,),) = system.query("SELECT clock_timestamp()")
        before = open_at(system, name)
        left = wait_for(lambda: 0 < (n := open_at(system, name)) <= before / 2 and n, 5, "the end of half of the calls")
        system.kill(name)  # the supervisor's grace is over
        claims = "SELECT count(*) FROM attempt WHERE worker LIKE %s AND opened_at > %s"
        assert system.query(claims, f"{name}@%", stopped) == [(0,)], "a worker that is asked to end claims nothing more"
        system.restarted(name, pid)
        load.more(50)
    with seen.recovery():
        all_sent(system, load.told)
    explained(system, shop, load.told)
    doubts = in_doubt(system, load.told)
    assert set(doubts) == {"worker_vanished"}
    assert 0 < doubts.total() <= left
    seen(f"{before} calls when it stopped, {left} when it was killed; {len(load.told)} sent, {doubts.total()} in doubt")


def says_that_it_stops(system: FaultSystem, name: str, since: int) -> bool:
    """Has the worker told, after the line with number ``since``, that it shuts down?"""
    return any(line.startswith(f"{name}: ") and " shutdown (MainProcess)" in line for line in system.heard()[since:])


@pytest.mark.thorough
@row("F10", "SIGQUIT with calls under way", "the process ends by itself; at most the calls under way in doubt")
def test_a_worker_told_to_quit_ends_by_itself(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    system.vendor.delay(CALL_SECONDS / 2)
    ids = shop.send_many(100, "webhook")
    wait_for(lambda: begun(system, ids) == len(ids), 20, "the begin of every call")  # so that nothing more is claimed
    name = busy_worker(system)
    under_way = open_at(system, name)
    with seen.recovery():
        pid = system.kill(name, signal.SIGQUIT)
        wait_for(lambda: system.pids()[name] != pid, 30, "the end of the process")
    all_sent(system, ids)
    explained(system, shop, ids)
    doubts = in_doubt(system, ids)
    assert set(doubts) <= {"worker_vanished"}
    assert doubts.total() <= under_way
    seen(f"ended by itself with {under_way} calls under way; {len(ids)} sent, {doubts.total()} in doubt in between")


def begun(system: FaultSystem, ids: list[str]) -> int:
    """For how many of ``ids`` a call was begun."""
    sql = "SELECT count(*) FROM attempt WHERE message_id = ANY(%s::uuid[]) AND begun_at IS NOT NULL"
    return int(system.query(sql, ids)[0][0])
