"""What the processes write while their servers are away and clients keep sending: enough to see why, and never a flood."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import chaski
from config.embedded.server import EmbeddedServer
from tests.processes.system import System, Tenant

pytestmark = [pytest.mark.processes, pytest.mark.faults, pytest.mark.thorough]
OUTAGE_SECONDS = 8.0
#: The most that one process may write in a minute. The web server is two processes and their parent.
LINES = 100
PROCESSES = {"web": 2}


@contextmanager
def sending(shop: Tenant) -> Iterator[Counter[str]]:
    """Two clients that send without pause while the block runs; gives what they were told."""
    told: Counter[str] = Counter()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                shop.send_many(5)
                told["accepted"] += 1
            except chaski.ChaskiError as error:
                told[type(error).__name__] += 1
            stop.wait(0.02)

    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send) for _ in range(2)]
        try:
            yield told
        finally:
            stop.set()
        for sender in senders:
            sender.result(60)


def during_an_outage(system: System, shop: Tenant, server: EmbeddedServer) -> list[str]:
    """The lines that all processes wrote while ``server`` was away and until all was sent."""
    before = len(system.lines)
    with sending(shop) as told:
        server.kill()
        time.sleep(OUTAGE_SECONDS)
        server.start()
    assert told
    shop.settled(60)
    return system.lines[before:]


@pytest.mark.parametrize(
    ("away", "said"), [("valkey", "bell_not_rung"), ("postgres", "request_failed")], ids=["the broker", "the database"]
)
def test_an_outage_is_told_in_few_lines_by_every_process(system: System, away: str, said: str) -> None:
    shop = system.new_service(("sms", "sandbox", "latency_ms=200"))
    lines = during_an_outage(system, shop, getattr(system, away))
    assert any(said in line for line in lines)
    few(lines)
    tracebacks = Counter(line.partition(":")[0] for line in lines if "Traceback" in line)
    assert max(tracebacks.values(), default=0) <= 2, "\n".join(lines)


@pytest.mark.parametrize("away", ["valkey", "postgres"], ids=["the broker", "the database"])
def test_a_whole_minute_of_it_is_no_more(system: System, away: str) -> None:
    shop, server = system.new_service(("sms", "sandbox", "latency_ms=200")), getattr(system, away)
    before = len(system.lines)
    with sending(shop):
        server.kill()
        time.sleep(60)
        lines = system.lines[before:]
        server.start()
    few(lines)
    shop.settled(60)


def few(lines: list[str]) -> None:
    """Every process spoke, and none too much. The journal of accepted requests is no complaint."""
    written = Counter(line.partition(":")[0] for line in lines if "_accepted " not in line)
    assert {"web", "worker1", "worker2"} <= set(written)
    too_many = {name: count for name, count in written.items() if count > LINES * PROCESSES.get(name, 1)}
    assert not too_many, "\n".join(lines[:200])
