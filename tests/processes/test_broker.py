"""The broker down, hung or talking twice: acceptance does not notice, and a bell too many sends nothing twice."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from kombu import Connection

from tests.processes.system import System, Tenant

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shop(system: System) -> Tenant:
    """A service with an SMS account at the simulator."""
    return system.new_service(system.twilio())


@contextmanager
def down(system: System) -> Iterator[None]:
    """Without any broker."""
    system.valkey.kill()
    try:
        yield
    finally:
        system.valkey.start()


@contextmanager
def hung(system: System) -> Iterator[None]:
    """With a broker that takes connections and never answers."""
    os.kill(system.valkey.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(system.valkey.process.pid, signal.SIGCONT)


def seconds_of(shop: Tenant, count: int) -> tuple[list[float], list[str]]:
    """How long each of ``count`` sends took, and their ids."""
    took, ids = [], []
    for _ in range(count):
        begun = time.perf_counter()
        ids.append(str(shop.send("sms", "+56912345678").id))
        took.append(time.perf_counter() - begun)
    return took, ids


@pytest.mark.parametrize("state", [down, hung])
def test_acceptance_does_not_wait_for_the_broker_and_messages_flow_when_it_returns(
    system: System, shop: Tenant, state: object
) -> None:
    usual, ids = seconds_of(shop, 60)
    workers = [system.supervisor.children[name].popen.pid for name in ("worker1", "worker2", "relay", "web")]
    with state(system):  # type: ignore[operator]
        without, more = seconds_of(shop, 60)
    assert statistics.median(without) < statistics.median(usual) + 0.05
    assert statistics.quantiles(without, n=10)[-1] < statistics.quantiles(usual, n=10)[-1] + 0.05
    assert set(shop.settled()) <= {"sent", "delivered"}
    assert system.accepted(*ids, *more) == dict.fromkeys(ids + more, 1)
    same = [system.supervisor.children[name].popen.pid for name in ("worker1", "worker2", "relay", "web")]
    assert same == workers, f"nobody had to be restarted\n{system.log(200)}"


def test_many_rings_for_one_message_deliver_it_once(system: System, shop: Tenant) -> None:
    system.manage.run("pause", "--service", shop.name)
    message = shop.send("sms", "+56912345678")
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        for _ in range(20):
            _ring(broker, str(message.id))
    system.manage.run("resume", "--service", shop.name)
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        for _ in range(20):
            _ring(broker, str(message.id))
    shop.client.wait(message.id, until="sent", timeout=15)
    shop.settled()
    assert system.accepted(str(message.id)) == {str(message.id): 1}
    assert len(shop.attempts(str(message.id))) == 1


def _ring(broker: Connection, message_id: str) -> None:
    """Publish a delivery task by hand, as any version of Chaski would."""
    arguments = {"version": 1, "channel": "sms", "lane": "normal", "ids": [message_id]}
    broker.SimpleQueue("normal").put(
        [[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        serializer="json",
        headers={
            "lang": "py",
            "task": "deliver.sms",
            "id": f"by-hand-{message_id}",
            "argsrepr": "()",
            "kwargsrepr": "",
        },
    )


def test_twenty_equal_requests_at_once_are_one_message_and_one_delivery(system: System, shop: Tenant) -> None:
    def send(_: int) -> str:
        return str(shop.send("sms", "+56912345678", key="paid:77").id)

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(send, range(20)))
    assert len(ids) == 1
    message_id = ids.pop()
    shop.client.wait(message_id, until="sent", timeout=15)
    shop.settled()
    assert system.accepted(message_id) == {message_id: 1}
    kept = system.query("SELECT count(*) FROM message WHERE idempotency_key = 'paid:77' AND service_id = %s", shop.id)
    assert kept == [(1,)]
