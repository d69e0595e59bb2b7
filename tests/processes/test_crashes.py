"""Processes and servers that die under load: afterwards every accepted message is final and the ledger balances."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.processes.system import System, Tenant, wait_for

pytestmark = pytest.mark.processes


@contextmanager
def sending(shop: Tenant) -> Iterator[list[str]]:
    """A client that sends without pause while the block runs; gives the ids that it was told."""
    told: list[str] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            told.extend(shop.send_many(20))
            stop.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(send)
        try:
            yield told
        finally:
            stop.set()
        sender.result(30)


def explained(system: System, shop: Tenant, ids: list[str]) -> None:
    """Each message was accepted by the provider at least once, and again only after a doubt that was counted."""
    accepts, doubts = system.accepted(*ids), shop.doubts()
    assert set(accepts) == set(ids), "every message reached the provider"
    unexplained = {id_: n for id_, n in accepts.items() if n > 1 + doubts[id_]}
    assert not unexplained


def test_a_worker_killed_in_the_middle_of_its_calls_loses_nothing(system: System) -> None:
    shop = system.new_service(("sms", "sandbox", "latency_ms=1000"))
    shop.send_many(400)
    name = wait_for(lambda: busiest(shop), 15, "calls under way")
    pid = system.kill(name)
    assert shop.settled() == {"sent": 400}
    assert max(shop.doubts().values()) >= 1, "its calls were under way, so they are counted as doubts"
    system.must_balance()
    system.restarted(name, pid)


def busiest(shop: Tenant) -> str:
    """The worker with more than fifty calls under way, if there is one."""
    sql = (
        "SELECT split_part(a.worker, '@', 1) FROM attempt a JOIN message m ON m.id = a.message_id WHERE m.service_id = %s"
        " AND a.begun_at IS NOT NULL AND a.finished_at IS NULL GROUP BY 1 HAVING count(*) > 50 ORDER BY count(*) DESC"
    )
    found = shop.system.query(sql, shop.id)
    return str(found[0][0]) if found else ""


def test_both_workers_and_the_relay_killed_under_load_double_nothing_in_silence(system: System) -> None:
    shop = system.new_service(system.twilio())
    ids = shop.send_many(1500)
    chance = random.Random(7)
    for name in ("worker1", "worker2", "relay", "worker1"):
        time.sleep(chance.uniform(0.2, 0.8))  # anywhere in a batch
        system.restarted(name, system.kill(name))
    statuses = shop.settled(60)
    assert set(statuses) <= {"sent", "delivered"}, statuses
    explained(system, shop, ids)
    system.must_balance()


def test_the_broker_killed_under_load_costs_delay_only(system: System) -> None:
    shop = system.new_service(system.twilio())
    ids = shop.send_many(500)
    system.valkey.kill()
    ids += shop.send_many(300)
    system.valkey.start()
    assert set(shop.settled()) <= {"sent", "delivered"}
    assert system.accepted(*ids) == dict.fromkeys(ids, 1)
    system.must_balance()


def test_the_broker_emptied_under_load_costs_delay_only(system: System) -> None:
    shop = system.new_service(system.twilio())
    broker = system.broker()
    ids: list[str] = []
    for _ in range(5):
        ids += shop.send_many(200)
        broker.flushall()
    broker.close()
    assert set(shop.settled()) <= {"sent", "delivered"}
    assert system.accepted(*ids) == dict.fromkeys(ids, 1)
    system.must_balance()


def test_the_database_killed_under_load_loses_nothing_that_was_promised(system: System) -> None:
    shop = system.new_service(system.twilio())
    with sending(shop) as told:
        wait_for(lambda: len(told) > 100, 20, "some messages")
        system.postgres.kill()
        system.postgres.start()
        before = len(told)
        wait_for(lambda: len(told) > before + 40, 30, "acceptance after the database is back")
    statuses = shop.settled(60)
    assert set(statuses) <= {"sent", "delivered"}, statuses
    assert set(shop.doubts()) == set(told), "what clients were told, and nothing else"
    explained(system, shop, told)
    system.must_balance()


def test_a_rolling_restart_puts_nothing_in_doubt(system: System) -> None:
    shop = system.new_service(("sms", "sandbox", "latency_ms=500"))
    with sending(shop) as told:
        for name in ("worker1", "worker2"):
            wait_for(lambda: shop.under_way() > 20, 15, "calls under way")
            system.restarted(name, system.kill(name, signal.SIGTERM))
    assert shop.settled() == {"sent": len(told)}
    assert set(shop.doubts().values()) == {0}
    system.must_balance()
