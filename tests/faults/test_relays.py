"""F24-F26: relays killed at any point of a tick, away, doubled; beat dead and doubled. Each tick finds what is due by itself."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from kombu import Connection

from config import processes
from deliveries.conf import limits
from tests.faults.evidence import Evidence
from tests.faults.system import RELAYS, FaultSystem
from tests.faults.watching import all_sent, bells, fate, now, once_and_without_doubt, row, rung_again, statuses
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

HOOK = "https://shop.example/hooks/"
WORK_DONE = (
    "SELECT count(*) FROM django_celery_results_taskresult"
    " WHERE task_name = 'chaski.maintain' AND status = 'SUCCESS' AND result LIKE '%%idempotency_keys%%'"
)
SLOTS = "SELECT count(*) FROM periodic_slot WHERE job = 'minute'"
RESULTS = "SELECT count(*) FROM django_celery_results_taskresult WHERE task_name = 'chaski.maintain'"


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
            ids += shop.send_many(500, "webhook", priority="bulk")
        begun = now()
        rung_again(system, {("webhook", "bulk")}, begun)
        time.sleep(2)  # twenty ticks of two relays
        waiting = Counter((bell["channel"], bell["lane"]) for bell in bells(system))
    assert waiting["webhook", "normal"] <= limits().queue_bells + 2 * len(RELAYS), waiting
    assert waiting["webhook", "bulk"] <= 2 * len(RELAYS), waiting
    with seen.recovery():
        all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    words = ", ".join(f"{count} in {lane}" for (_, lane), count in sorted(waiting.items()))
    seen(f"{len(ids)} due, bells: {words}; then all sent once")


@row("F26", "beat killed, and its task rung six times at once", "messages flow; periodic work once per slot")
def test_periodic_work_is_done_once_per_slot_however_often_it_is_rung(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    pid = system.kill("beat")
    message = shop.send("webhook", HOOK)
    before = system.query(RESULTS)[0][0]
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
    wait_for(lambda: system.query(RESULTS)[0][0] >= before + 6, 20, "six runs of the task")
    assert system.query(WORK_DONE) == system.query(SLOTS)
    all_sent(system, [str(message.id)])
    with seen.recovery():
        system.restarted("beat", pid)
    seen("six runs, one of them did the minute's work; beat was started again")


@pytest.mark.thorough
@row("F26", "two beats for two minutes", "periodic work once per slot")
def test_two_beats_do_the_work_of_one(system: FaultSystem, seen: Evidence) -> None:
    second = replace(processes.beat(str(system.home / "beat2-schedule")), name="beat2")
    system.supervisor.start(second)
    try:
        slots, runs = system.query(SLOTS)[0][0], system.query(RESULTS)[0][0]
        wait_for(lambda: system.query(RESULTS)[0][0] >= runs + 4, 200, "two runs from each beat")
    finally:
        system.supervisor.end("beat2")
    wait_for(lambda: system.query(WORK_DONE) == system.query(SLOTS), 5, "work once per slot")
    seen(f"{system.query(RESULTS)[0][0] - runs} runs, {system.query(SLOTS)[0][0] - slots} slots, once each")
