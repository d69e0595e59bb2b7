"""F24-F26: relays killed at any point of a tick, away, doubled; beat dead and doubled. Each tick finds what is due by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from kombu import Connection

import chaski
from config import processes
from deliveries.conf import limits
from tests.faults.evidence import Evidence
from tests.faults.hostile import Vendors, accepts, vendors
from tests.faults.system import RELAYS, FaultSystem
from tests.faults.tenants import callbacks, tenant
from tests.faults.watching import (
    NOISE_SECONDS,
    RECOVERY_SECONDS,
    all_sent,
    fate,
    looked_at,
    once_and_without_doubt,
    row,
    statuses,
    waiting,
)
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


def unchanged(system: FaultSystem, seconds: float) -> tuple[int, int, int] | None:
    """The counts, provided that they stay so: a run that has begun its minute has told its result too."""
    before = periodic(system)
    time.sleep(seconds)
    return before if periodic(system) == before else None


def once_per_minute(system: FaultSystem, since: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The counts once every run has told its result, provided that there is one with work for each minute."""
    runs, works, minutes = periodic(system, since)
    return (runs, works, minutes) if works == minutes else None


@pytest.fixture
def told(system: FaultSystem) -> Iterator[tuple[Tenant, Vendors]]:
    """A service whose callbacks go to an endpoint of the test's own, and that endpoint."""
    with vendors() as endpoint:
        asking = tenant(system, system.webhook())
        system.manage.run("endpoint", "set", asking.name, f"{endpoint.url}/callbacks/")
        endpoint.answers["/callbacks/"] = accepts
        yield asking, endpoint


@row("F24", "relays killed before and after the commit of each job, and before a ring", "the next tick does it, once")
def test_a_relay_killed_anywhere_in_its_tick_leaves_the_work_to_the_next(
    system: FaultSystem, shop: Tenant, told: tuple[Tenant, Vendors], seen: Evidence
) -> None:
    asking, endpoint = told
    jobs = ("receipts", "end_leases", "expire", "unblock", "callbacks")
    for job in jobs:
        system.crash_at("relay_before_commit", job)
        system.crash_at("relay_after_commit", job)
    system.crash_at("after_claim")
    abandoned = shop.send("webhook", HOOK)
    system.crashed("after_claim")
    proved = shop.send("sms", "+56920000001")
    system.crash_at("relay_before_ring", "webhook", times=2)
    rung = shop.send("webhook", HOOK, send_at=datetime.now(UTC) + timedelta(seconds=1))
    stuck = behind_nobody(system, shop)
    with system.paused(asking.id):
        late = asking.send("webhook", HOOK, expires_at=datetime.now(UTC) + timedelta(seconds=1))
        wait_for(
            lambda: killed_relays(system) and statuses(system, [str(late.id)])["expired"],
            60,
            "the end of what had no time left",
        )
    killed = 2 * len(jobs) + 2
    dead = wait_for(
        lambda: pids if len(pids := killed_relays(system)) == killed else None, 90, f"{killed} relays killed"
    )
    wait_for(
        lambda: {system.pids()[name] for name in RELAYS} - dead, 60, "a relay that its supervisor has started again"
    )
    with seen.recovery():
        all_sent(system, [str(message.id) for message in (abandoned, proved, rung, stuck)])
        wait_for(lambda: statuses(system, [str(proved.id)])["delivered"], 20, "the receipt's effect")
        wait_for(lambda: set(callbacks(asking)) == {"sent"}, 20, "the callback")
    assert seen.recovery_seconds is not None
    assert seen.recovery_seconds < RECOVERY_SECONDS + NOISE_SECONDS
    assert endpoint.asked["/callbacks/"] == callbacks(asking)["sent"] == 1
    assert fate(system, str(abandoned.id)).attempts == 2
    once_and_without_doubt(system, shop, [str(message.id) for message in (abandoned, proved, rung, stuck)])
    seen(
        f"{killed} relays killed; lease ended once, receipt applied once, expired once with one callback, scheduled"
        " message rung for, one let go that waited for a predecessor which is gone"
    )


def behind_nobody(system: FaultSystem, shop: Tenant) -> chaski.Message:
    """A message that waits for a predecessor which is gone, as a race between its acceptance and that one's record leaves it."""
    soon = datetime.now(UTC) + timedelta(seconds=1)
    message = shop.send("webhook", HOOK, ordering_key="behind-nobody", send_at=soon)
    with psycopg.connect(system.postgres.socket_url) as connection:
        sql = "UPDATE pending SET blocked = true, waiting_for = 'predecessor' WHERE message_id = %s"
        assert connection.execute(sql, [message.id]).rowcount == 1
    return message


def killed_relays(system: FaultSystem) -> set[int]:
    """The pids of the relays that were killed at a point of their tick; the next one is started soon all the same."""
    system.forget_crashes()
    return {int(file.name.split(".")[1]) for file in system.crashes.glob("taken.*.relay_*")}


@row("F25", "no relay while much becomes due, then two, and workers that take nothing", "bells stay bounded")
def test_two_relays_after_none_ring_no_storm(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    workers = [pid for name, pid in system.pids().items() if name.startswith("worker")]
    with system.frozen(*workers):
        with system.without(*RELAYS):
            soon = datetime.now(UTC) + timedelta(seconds=0.5)
            ids = [str(shop.send("webhook", HOOK, send_at=soon).id) for _ in range(10)]
            ids += [str(shop.send("webhook", HOOK).id) for _ in range(limits().queue_bells + 20)]
            ids += shop.send_many(60, "webhook", priority="bulk")
        looked_at(system, "bulk", by=len(RELAYS), times=20)
        found = waiting(system)
    assert found["webhook", "normal"] <= limits().queue_bells + 2 * len(RELAYS), found
    assert found["webhook", "bulk"] <= 2 * len(RELAYS), found
    with seen.recovery():
        all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    words = ", ".join(f"{count} in {lane}" for (_, lane), count in sorted(found.items()))
    seen(f"{len(ids)} due, bells after 20 ticks of each relay: {words}; then all sent once")


@row("F26", "beat killed, and its task rung six times at once", "messages flow; periodic work once per slot")
def test_periodic_work_is_done_once_per_slot_however_often_it_is_rung(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    pid = system.kill("beat")
    message = shop.send("webhook", HOOK)
    wait_for(lambda: unchanged(system, 0.5), 20, "the end of what beat had rung for")
    system.query("DELETE FROM periodic_slot WHERE job = 'minute' RETURNING 1")  # so that its work is to be done again
    before = periodic(system)
    # To the queue itself, as beat does: a queue's exchange may lead to others too.
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        producer = broker.Producer()
        for n in range(6):
            id_ = f"beat-{pid}-{n}"
            headers = {"lang": "py", "task": "chaski.maintain", "id": id_, "argsrepr": "", "kwargsrepr": ""}
            embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
            producer.publish([[], {}, embed], exchange="", routing_key="control", headers=headers)
    wait_for(lambda: periodic(system, before)[0] >= 6, 20, "six runs of the task")
    runs, works, minutes = wait_for(lambda: once_per_minute(system, before), 10, "each minute's work done once")
    assert 1 <= minutes <= 2
    all_sent(system, [str(message.id)])
    with seen.recovery():
        system.restarted("beat", pid)
    seen(f"{runs} runs, {works} of them did a minute's work, of which {minutes} began; beat was started again")


@pytest.mark.thorough
@row("F26", "two beats over the turn of a minute", "periodic work once per slot")
def test_two_beats_do_the_work_of_one(system: FaultSystem, seen: Evidence) -> None:
    second = replace(processes.beat(str(system.home / "beat2-schedule")), name="beat2")
    system.supervisor.start(second)
    try:
        before = periodic(system)
        wait_for(lambda: periodic(system, before)[0] >= 3, 200, "two runs from one beat and one from the other")
    finally:
        system.supervisor.end("beat2")
    runs, works, minutes = wait_for(lambda: once_per_minute(system, before), 10, "each minute's work done once")
    assert minutes < runs
    seen(f"{runs} runs in {minutes} minutes, of which {works} did their work")
