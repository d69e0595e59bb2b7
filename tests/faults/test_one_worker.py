"""F40, F41, F46: one worker whose clock is wrong, whose way to the database is cut, whose disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from channels.simulator.faults import FAULTS, PHONE_PREFIX
from config import local, processes
from config.ports import any_free
from config.processes import Process
from tests.faults.evidence import Evidence
from tests.faults.proxy import Proxy
from tests.faults.system import WORKERS, FaultSystem
from tests.faults.tenants import tenant
from tests.faults.watching import (
    CALL_SECONDS,
    LEASE_SECONDS,
    NOISE_SECONDS,
    RECOVERY_SECONDS,
    explained,
    once_and_without_doubt,
)
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

SKEWED = Path(__file__).parent / "skewed"


def with_variables(process: Process, **variables: str) -> Process:
    """The process in an environment that differs by ``variables``."""
    given = (f"{name}={value}" for name, value in variables.items())
    return replace(process, command=("env", *given, *process.arguments))


@contextmanager
def instead(system: FaultSystem, *others: Process) -> Iterator[None]:
    """Run with ``others`` in the place of the processes of the same names."""
    with ExitStack() as stack:
        stack.enter_context(system.without(*(process.name for process in others)))
        for process in others:
            system.supervisor.start(process)
            stack.callback(system.supervisor.end, process.name)
        ready(system)
        yield
        system.heal()
    ready(system)


def ready(system: FaultSystem) -> None:
    """Wait until both workers answer."""
    wait_for(lambda: local.wait_for_workers(system.environment["CHASKI_BROKER_URL"], 2) == 2, 60, "two workers")


@pytest.fixture
def shop(system: FaultSystem) -> Tenant:
    """A service with an SMS account and one for webhooks at the simulator."""
    return tenant(system, system.twilio(), system.webhook())


@pytest.mark.thorough
@pytest.mark.row(
    "F40", "clock of one worker an hour ahead, of the other an hour behind (simulated)", "leases, waits, times as usual"
)
def test_the_clocks_of_workers_decide_nothing(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    skewed = [
        with_variables(processes.worker(number), PYTHONPATH=str(SKEWED), SKEW_SECONDS=seconds)
        for number, seconds in ((1, "3600"), (2, "-3600"))
    ]
    with instead(system, *skewed):
        begun = system.query("SELECT now()")[0][0]
        send_at = datetime.now(UTC) + timedelta(seconds=3)
        scheduled = str(shop.send("sms", "+56912345678", send_at=send_at).id)
        throttled = str(shop.send("sms", f"{PHONE_PREFIX}{FAULTS['throttle'].digits}").id)
        failing = str(shop.send("sms", f"{PHONE_PREFIX}{FAULTS['server_error'].digits}").id)
        system.vendor.delay(0.2)  # so long that one worker alone would not take them all
        ids = shop.send_many(400)
        wait_for(lambda: len(workers(shop, ids)) == 2, 20, "both workers at work")
        system.vendor.heal()
        assert sent(shop.settled(60))
        explained(system, shop, ids)
        assert ended_leases(shop) == 0, "no lease ended early"
        assert shop.doubts()[failing] == 1
        system.crash_at("in_send")
        with seen.recovery():
            crashed = str(shop.send("webhook", "https://shop.example/hooks/1").id)
            assert sent(shop.settled(60))
        assert shop.doubts()[crashed] == ended_leases(shop) == 1
        in_time(shop, begun)
    assert shop.attempts(scheduled)[0][3] >= send_at
    assert (waited := between(shop, throttled)) >= 1
    assert waited < 1.1 + NOISE_SECONDS
    assert between(shop, failing) < NOISE_SECONDS
    assert seen.recovery_seconds is not None
    assert LEASE_SECONDS - 1 < seen.recovery_seconds < RECOVERY_SECONDS + NOISE_SECONDS
    seen("schedule, Retry-After, backoff and lease as ever; both worked; every time kept is the database's")


def sent(statuses: Mapping[str, int]) -> bool:
    """Did everything go out?"""
    return set(statuses) <= {"sent", "delivered"}


WORKERS_OF = "SELECT DISTINCT worker FROM attempt WHERE message_id = ANY(%s::uuid[])"


def ended_leases(shop: Tenant) -> int:
    """Attempts that the sweep had to end."""
    sql = (
        "SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id WHERE m.service_id = %s"
        " AND a.code = 'worker_vanished'"
    )
    return int(shop.system.query(sql, shop.id)[0][0])


def between(shop: Tenant, message_id: str) -> float:
    """Seconds from the end of the first attempt to the begin of the second."""
    first, second = shop.attempts(message_id)[:2]
    return float((second[3] - first[4]).total_seconds())


def in_time(shop: Tenant, begun: datetime) -> None:
    """Every time that was kept lies between ``begun`` and now, by the database's clock."""
    sql = (
        "SELECT count(*) FROM (SELECT unnest(ARRAY[a.opened_at, a.begun_at, a.finished_at, m.sent_at, m.updated_at]) AS at"
        " FROM message m JOIN attempt a ON a.message_id = m.id WHERE m.service_id = %s) t"
        " WHERE at NOT BETWEEN %s AND now() + interval '1 second'"
    )
    assert shop.system.query(sql, shop.id, begun)[0][0] == 0


@pytest.mark.thorough
@pytest.mark.row(
    "F41", "one worker cut off from PostgreSQL for longer than a lease", "the other goes on; late facts kept"
)
def test_a_worker_cut_off_from_the_database_stops_nobody(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    assert system.postgres.port is not None
    with Proxy(any_free(), ("127.0.0.1", system.postgres.port)) as way:
        url = f"postgres://chaski@127.0.0.1:{way.port}/chaski"
        with instead(system, with_variables(processes.worker(2), DATABASE_URL=url)):
            system.vendor.delay(1.0)
            ids = shop.send_many(300, "webhook")
            wait_for(lambda: under_way_at(shop, "worker2") > 20, 20, "calls of the worker that is to be cut off")
            way.refuse()
            held = under_way_at(shop, "worker2")
            with seen.recovery():
                system.vendor.heal()
                assert sent(shop.settled(60)), "the other worker sends what the lost leases leave"
            more = shop.send_many(50, "webhook")
            assert sent(shop.settled())
            assert workers(shop, more) == {"worker1"}
            way.heal()
            wait_for(lambda: late(shop) > 0, 30, "what the cut off worker knew")
            wait_for(lambda: takes_part(shop), 30, "the second worker's part")
    explained(system, shop, ids)
    assert all(n == 1 for n in system.accepted(*more).values())
    seen(f"{held} calls cut off: sent again by the other, {late(shop)} answers kept as late facts; it takes part again")


def under_way_at(shop: Tenant, name: str) -> int:
    """Calls of one worker that have begun and are not recorded."""
    sql = (
        "SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id WHERE m.service_id = %s"
        " AND a.begun_at IS NOT NULL AND a.finished_at IS NULL AND a.worker LIKE %s"
    )
    return int(shop.system.query(sql, shop.id, f"{name}@%")[0][0])


def workers(shop: Tenant, ids: list[str]) -> set[str]:
    """Who sent ``ids``."""
    return {str(row[0]).partition("@")[0] for row in shop.system.query(WORKERS_OF, ids)}


def late(shop: Tenant) -> int:
    """Attempts whose answer came after their lease had ended."""
    sql = (
        "SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id WHERE m.service_id = %s"
        " AND a.late IS NOT NULL"
    )
    return int(shop.system.query(sql, shop.id)[0][0])


def takes_part(shop: Tenant) -> bool:
    """Does the second worker send, of some messages more?"""
    ids = shop.send_many(40, "webhook")
    shop.settled()
    return "worker2" in workers(shop, ids)


@contextmanager
def full_disks(system: FaultSystem) -> Iterator[None]:
    """No worker can make a file any longer: a limit in place of a disk that is full."""
    pids = [system.pids()[name] for name in WORKERS]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.mark.row(
    "F46",
    "workers' disk full (simulated by a limit of file size 0), the database away meanwhile",
    "nothing lost, no restart",
)
def test_a_full_disk_loses_nothing(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    pids = system.pids()
    with full_disks(system):
        ids = shop.send_many(100, "webhook")
        assert sent(shop.settled()), "delivery needs no disk"
        system.vendor.delay(CALL_SECONDS / 2)
        heard = len(system.heard())
        ids += shop.send_many(100, "webhook")
        wait_for(lambda: shop.under_way() > 20, 20, "calls under way")
        system.database.refuse()
        going = {name: count for name in WORKERS if (count := under_way_at(shop, name))}
        for event in ("spill_not_written", "results_wait_for_the_database"):
            wait_for(
                lambda told=event: who_told(system, told, heard) >= set(going), 20, f"{event} from each of {going}"
            )  # type: ignore[misc]
        system.vendor.heal()
        with seen.recovery():
            system.database.heal()
            assert sent(shop.settled(60))
    once_and_without_doubt(system, shop, ids)
    assert system.pids() == pids, "no process had to be started again"
    seen(
        f"{sum(going.values())} of {len(ids)} calls under way at {len(going)} workers, whose answers neither database nor"
        " disk took; each sent once, none in doubt; no process ended"
    )


def who_told(system: FaultSystem, event: str, since: int) -> set[str]:
    """The processes that have told ``event`` after the line with number ``since``."""
    return {line.partition(":")[0] for line in system.heard()[since:] if f" {event} " in line}
