"""F42, F45: what stands beside delivery, the result backend and Flower, is away; delivery does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
import urllib3
from kombu import Connection

from config import processes
from config.ports import any_free
from tests.faults.evidence import Evidence
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

RESULTS = "django_celery_results_taskresult"


@pytest.fixture(scope="module")
def shop(running: FaultSystem) -> Tenant:
    """A service with an SMS account at the simulator."""
    return tenant(running, running.twilio())


def ring_wrongly(system: FaultSystem, count: int) -> list[str]:
    """Bells for ids that are none: tasks whose failure the result backend should keep. Their ids."""
    ids = [uuid4().hex for _ in range(count)]
    bell = {"channel": "sms", "lane": "normal", "ids": ["no id"]}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        queue = broker.SimpleQueue("normal")
        for id_ in ids:
            headers = {"lang": "py", "task": "deliver.sms", "id": id_, "argsrepr": "()", "kwargsrepr": ""}
            queue.put([[], bell, embed], serializer="json", headers=headers)
        queue.close()
    return ids


def kept(system: FaultSystem, ids: list[str]) -> int:
    """How many of the tasks have their failure kept."""
    sql = f"SELECT count(*) FROM {RESULTS} WHERE task_id = ANY(%s) AND status = 'FAILURE'"
    return int(system.query(sql, ids)[0][0])


def met(system: FaultSystem, ids: list[str]) -> bool:
    """Has every task been taken, and a worker told of one that its failure could not be kept?"""
    with system.queues() as broker:
        waiting = broker.llen("normal")
    return not waiting and any("task_result_not_kept" in line and id_ in line for line in system.heard() for id_ in ids)


@contextmanager
def missing(system: FaultSystem) -> Iterator[None]:
    """Without the table of results."""
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {RESULTS} RENAME TO away")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE away RENAME TO {RESULTS}")


@contextmanager
def locked(system: FaultSystem) -> Iterator[None]:
    """With the table of results locked."""
    with psycopg.connect(system.postgres.socket_url) as connection:
        connection.execute(f"LOCK TABLE {RESULTS} IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(missing, marks=pytest.mark.row("F42", "the table of task results is missing", "delivery goes on")),
        pytest.param(locked, marks=pytest.mark.row("F42", "the table of task results is locked", "delivery goes on")),
    ],
)
def test_delivery_goes_on_without_the_result_backend(
    system: FaultSystem, shop: Tenant, seen: Evidence, away: type[Iterator[None]]
) -> None:
    pids = system.pids()
    with away(system):  # type: ignore[attr-defined]
        failing = ring_wrongly(system, 20)
        wait_for(lambda: met(system, failing), 60, "the failing tasks that meet it")
        with seen.recovery():
            ids = shop.send_many(200)
            assert set(shop.settled()) <= {"sent", "delivered"}
    assert system.accepted(*ids) == dict.fromkeys(ids, 1)
    later = ring_wrongly(system, 1)
    wait_for(lambda: kept(system, later) == 1, 20, "a failure that is kept again")
    assert system.pids() == pids, "no process had to be started again"
    seen("20 failing tasks beside 200 messages: all sent; failures are kept again afterwards")


@pytest.mark.thorough
@pytest.mark.row("F45", "Flower killed", "delivery goes on; it comes back by itself")
def test_delivery_goes_on_without_flower(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    port = any_free()
    process = processes.flower(port)
    system.supervisor.start(process)
    try:
        wait_for(lambda: answers(port), 30, "Flower's first answer")
        pid = system.kill(process.name)
        ids = shop.send_many(100)
        assert set(shop.settled()) <= {"sent", "delivered"}
        assert system.accepted(*ids) == dict.fromkeys(ids, 1)
        with seen.recovery():
            system.restarted(process.name, pid)
            wait_for(lambda: answers(port), 30, "Flower's answer")
    finally:
        system.supervisor.end(process.name)
    seen("100 messages sent meanwhile; Flower answers again")


def answers(port: int) -> bool:
    """Does Flower answer on ``port``?"""
    try:
        found = urllib3.PoolManager(retries=False, timeout=2.0).request("GET", f"http://127.0.0.1:{port}/healthcheck")
    except urllib3.exceptions.HTTPError:
        return False
    return found.status == 200
