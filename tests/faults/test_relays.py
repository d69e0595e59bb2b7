"""F24-F26: relays killed at any point of a tick, away, doubled; beat dead and doubled. Each tick finds what is due by itself."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from kombu import Connection

from config import processes
from deliveries.conf import limits
from tests.faults.evidence import Evidence
from tests.faults.system import RELAYS, FaultSystem
from tests.faults.watching import all_sent, fate, once_and_without_doubt, row, rung_again, statuses, waiting
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

HOOK = "https://shop.example/hooks/"
#: Runs of the periodic task, those of them that did a minute's work, and minutes that have been taken.
PERIODIC = """
SELECT count(*), count(*) FILTER (WHERE result LIKE '%%idempotency_keys%%'),
    (SELECT count(*) FROM periodic_slot WHERE job = 'minute')
FROM django_celery_results_taskresult WHERE task_name = 'chaski.maintain'
"""


def periodic(system: FaultSystem, since: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
    """Runs, runs with work, minutes, each counted from ``since``."""
    ((runs, works, minutes),) = system.query(PERIODIC)
    return runs - since[0], works - since[1], minutes - since[2]


def once_per_minute(system: FaultSystem, since: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The counts once every run has told its result, provided that there is one with work for each minute."""
    runs, works, minutes = periodic(system, since)
    return (runs, works, minutes) if works == minutes else None


@row("F24", "relays killed before and after a commit, and before a ring", "the next tick does it, once")
def test_a_relay_killed_anywhere_in_its_tick_leaves_the_work_to_the_next(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    for job in ("receipts", "end_leases"):
        system.crash_at("relay_before_commit", job)
        system.crash_at("relay_after_commit", job)
    system.crash_at("after_claim")
    abandoned = shop.send("webhook", HOOK)
    system.crashed("after_claim")
    proved = shop.send("sms", "+56920000001")
    system.crash_at("relay_before_ring", "webhook", times=2)
    rung = shop.send("webhook", HOOK, send_at=datetime.now(UTC) + timedelta(seconds=1))
    for point in ("relay_before_commit", "relay_after_commit", "relay_before_ring"):
        wait_for(lambda where=point: system.crashed(where, times=2), 40, f"two relays killed at {point}")
    with seen.recovery():
        all_sent(system, [str(message.id) for message in (abandoned, proved, rung)])
        wait_for(lambda: statuses(system, [str(proved.id)])["delivered"], 20, "the receipt's effect")
    assert fate(system, str(abandoned.id)).attempts == 2
    once_and_without_doubt(system, shop, [str(message.id) for message in (abandoned, proved, rung)])
    seen("six relays killed; lease ended once, receipt applied once, scheduled message rung for")


@row("F25", "no relay while much becomes due, then two, and workers that take nothing", "bells stay bounded")
def test_two_relays_after_none_ring_no_storm(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    workers = [pid for name, pid in system.pids().items() if name.startswith("worker")]
    with system.frozen(*workers):
        with system.without(*RELAYS):
            soon = datetime.now(UTC) + timedelta(seconds=0.5)
            ids = [str(shop.send("webhook", HOOK, send_at=soon).id) for _ in range(10)]
            ids += [str(shop.send("webhook", HOOK).id) for _ in range(limits().queue_bells + 20)]
            ids += shop.send_many(60, "webhook", priority="bulk")
        rung_again(system, {("webhook", "bulk")})
        time.sleep(2)  # twenty ticks of two relays
        found = waiting(system)
    assert found["webhook", "normal"] <= limits().queue_bells + 2 * len(RELAYS), found
    assert found["webhook", "bulk"] <= 2 * len(RELAYS), found
    with seen.recovery():
        all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    words = ", ".join(f"{count} in {lane}" for (_, lane), count in sorted(found.items()))
    seen(f"{len(ids)} due, bells: {words}; then all sent once")


@row("F26", "beat killed, and its task rung six times at once", "messages flow; periodic work once per slot")
def test_periodic_work_is_done_once_per_slot_however_often_it_is_rung(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    pid = system.kill("beat")
    message = shop.send("webhook", HOOK)
    before = periodic(system)
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker, broker.SimpleQueue("control") as queue:
        for n in range(6):
            headers = {
                "lang": "py",
                "task": "chaski.maintain",
                "id": f"beat-{pid}-{n}",
                "argsrepr": "",
                "kwargsrepr": "",
            }
            queue.put([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}], headers=headers)
    wait_for(lambda: periodic(system, before)[0] >= 6, 20, "six runs of the task")
    runs, works, minutes = wait_for(lambda: once_per_minute(system, before), 10, "each minute's work done once")
    assert minutes <= 2
    all_sent(system, [str(message.id)])
    with seen.recovery():
        system.restarted("beat", pid)
    seen(f"{runs} runs, {works} of them did a minute's work, of which {minutes} began; beat was started again")


@pytest.mark.thorough
@row("F26", "two beats for two minutes", "periodic work once per slot")
def test_two_beats_do_the_work_of_one(system: FaultSystem, seen: Evidence) -> None:
    second = replace(processes.beat(str(system.home / "beat2-schedule")), name="beat2")
    system.supervisor.start(second)
    try:
        before = periodic(system)
        wait_for(lambda: periodic(system, before)[0] >= 4, 200, "two runs from each beat")
    finally:
        system.supervisor.end("beat2")
    runs, works, minutes = wait_for(lambda: once_per_minute(system, before), 10, "each minute's work done once")
    assert minutes < runs
    seen(f"{runs} runs in {minutes} minutes, of which {works} did their work")
