"""A worker that hears nothing ends itself and is started again; one that is merely busy is left alone."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import psycopg
import pytest
from kombu import Connection

from config import processes
from config.processes import Process
from config.supervisor import Supervisor
from deliveries.watchdog import EXIT_CODE
from tests.processes.system import ROOT, SCALE, System, Tenant, wait_for

pytestmark = pytest.mark.processes
DEAF_SECONDS = 30 * SCALE
NAME = "worker3"


class HalfOpen:
    """A TCP port before the broker's socket. ``forget`` leaves its connections open and carries nothing any more, as a
    firewall does that lost its table; new connections work."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        for open_socket in (self._listening, *self._peers):
            open_socket.close()
        self._selector.close()

    def forget(self) -> None:
        """Carry nothing more on the connections that are open now."""
        with self._lock:
            for side in self._peers:
                if side.fileno() >= 0 and side in self._selector.get_map():
                    self._selector.unregister(side)

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, readable: socket.socket) -> None:
        if readable is self._listening:
            ours, _ = self._listening.accept()
            theirs = socket.socket(socket.AF_UNIX)
            theirs.connect(self._target)
            self._peers |= {ours: theirs, theirs: ours}
            self._selector.register(ours, selectors.EVENT_READ)
            self._selector.register(theirs, selectors.EVENT_READ)
        elif readable in self._selector.get_map():
            self._carry(readable, self._peers[readable])

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(65_536)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for side in (source, target):
                if side in self._selector.get_map():
                    self._selector.unregister(side)
                side.close()


class Alone:
    """The system with one worker, of our own, behind ``HalfOpen``."""

    def __init__(self, system: System, proxy: HalfOpen, supervisor: Supervisor, shown: list[str]) -> None:
        self.system = system
        self.proxy = proxy
        self.shown = shown
        self._supervisor = supervisor

    def start(self, process: Process) -> None:
        """Start the worker and wait until it takes bells."""
        self._supervisor.start(process)
        self.wait_until_it_takes_bells()

    def wait_until_it_takes_bells(self) -> None:
        """Until the process that runs now has left its first sign of life, which it does when it is ready."""
        began = self.system.query("SELECT clock_timestamp()")[0][0]
        sql = "SELECT 1 FROM heartbeat WHERE name LIKE %s AND seen_at > %s"
        wait_for(lambda: self.system.query(sql, f"{NAME}@%", began), 30, "the worker's sign of life")

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._supervisor.children[NAME].popen.pid

    def lines(self, word: str) -> list[str]:
        """What was shown with ``word`` in it."""
        return [line for line in self.shown if word in line]


@pytest.fixture(scope="module")
def alone(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The usual workers are away meanwhile."""
    others = [processes.worker(1), processes.worker(2)]
    for other in others:
        system.supervisor.end(other.name)
    shown: list[str] = []
    try:
        with HalfOpen(system.valkey.socket) as proxy:
            environment = {**system.environment, "CHASKI_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
            logs = tmp_path_factory.mktemp("alone")

            def show(name: str, line: str) -> None:
                shown.append(f"{name}: {line}")

            with Supervisor(environment, folder=ROOT, logs=logs, show=show) as supervisor:
                alone = Alone(system, proxy, supervisor, shown)
                alone.start(worker(slots=1))
                yield alone
    finally:
        for other in others:
            system.supervisor.start(other)


def worker(slots: int) -> Process:
    """A worker with room for ``slots`` tasks."""
    usual = processes.worker(3)
    command = tuple(str(slots) if word == "32" else word for word in usual.command)
    return Process(usual.name, command, usual.stage, usual.grace_seconds)


@pytest.fixture
def shop(alone: Alone) -> Tenant:
    """A service whose calls take as long as this scale allows."""
    return alone.system.new_service(("sms", "sandbox", "latency_ms=1200"))


@pytest.mark.faults
@pytest.mark.thorough
def test_a_worker_with_slow_calls_for_long_is_left_alone(alone: Alone, shop: Tenant) -> None:
    before = alone.pid
    shop.send_many(1400)  # seven windows of 200, each 1.2 s: longer than twice the patience
    assert shop.settled(60) == {"sent": 1400}
    assert alone.pid == before
    assert not alone.lines("worker_ends_itself")


@pytest.mark.faults
@pytest.mark.thorough
def test_a_worker_whose_slot_is_taken_while_bells_lie_there_is_left_alone(alone: Alone) -> None:
    before = alone.pid
    with closing(alone.system.broker()) as broker, stuck_claim(alone.system):
        broker.select(0)
        for _ in range(3):
            ring(alone.system)
        wait_for(lambda: broker.llen("normal") > 0, 5, "bells that lie there")
        threading.Event().wait(DEAF_SECONDS * 2)
        assert broker.llen("normal") > 0, "they lay there all the time"
    assert alone.pid == before
    assert not alone.lines("worker_ends_itself")


@contextmanager
def stuck_claim(system: System) -> Iterator[None]:
    """One task holds its slot all the time: its database session is stopped in the middle of its claim."""
    sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^\\s*WITH RECURSIVE turn'"
    with psycopg.connect(system.postgres.socket_url) as other:
        other.execute("LOCK TABLE pending IN ACCESS EXCLUSIVE MODE")
        ring(system)
        ((session,), *_) = wait_for(lambda: system.query(sql), 10, "a claim that waits for the lock")
        os.kill(session, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(session, signal.SIGCONT)


def ring(system: System) -> None:
    """One bare bell."""
    arguments = {"version": 1, "channel": "sms", "lane": "normal", "ids": []}
    empty = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = {"lang": "py", "task": "deliver.sms", "id": "by-hand", "argsrepr": "()", "kwargsrepr": ""}
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        broker.SimpleQueue("normal").put([[], arguments, empty], serializer="json", headers=headers)


def test_a_deaf_worker_ends_itself_and_its_successor_delivers(alone: Alone, shop: Tenant) -> None:
    before = alone.pid
    shop.send_many(1)
    assert shop.settled() == {"sent": 1}
    alone.proxy.forget()
    shop.send_many(5)
    wait_for(lambda: alone.lines(f"ended with code {EXIT_CODE}"), DEAF_SECONDS + 20, "the end of the deaf worker")
    (said,) = alone.lines("worker_ends_itself")
    assert "reason=deaf" in said
    assert "normal" in said
    assert shop.settled(40) == {"sent": 6}
    assert alone.pid != before
    alone.system.must_balance()
