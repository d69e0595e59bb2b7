"""The system under fault: everything doubled that may be doubled, and a proxy that misbehaves before each server.

PostgreSQL, Valkey, web, two workers, two relays, beat and the simulator, each in a session of its own. The tests see the
database and the broker past the proxies. What clients were told and what the simulator accepted is kept in two files
that Chaski neither reads nor writes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import psycopg
import redis

from config import processes, supervisor
from config.embedded import EmbeddedPostgres, EmbeddedValkey
from config.ports import any_free
from config.processes import Process
from config.supervisor import Backoff
from deliveries import ledger
from tests.faults.proxy import Proxy
from tests.processes.system import PAUSE_SECONDS, System, wait_for

WORKERS = ("worker1", "worker2")
RELAYS = ("relay1", "relay2")


class FaultSystem(System):
    """Started by ``with``. ``database``, ``broker``, ``vendor`` and ``api`` are the proxies before the servers.

    ``database_settings`` go over those of a development database.
    """

    def __init__(self, home: Path, *, database_settings: Mapping[str, str] | None = None) -> None:
        self.database_settings = database_settings
        self._looked_until = 0
        self.crashes = home / "crashes"
        self.crashes.mkdir()
        super().__init__(home)
        assert self.postgres.port is not None
        assert self.valkey.port is not None
        self.database = self._proxy(self.postgres.port)
        self.broker_proxy = self._proxy(self.valkey.port)
        self.vendor = self._proxy(self.ports.simulator)
        self.api = self._proxy(self.ports.web)
        self.spares = ExitStack()
        self.proxies = (self.database, self.broker_proxy, self.vendor, self.api)

    @staticmethod
    def _proxy(port: int) -> Proxy:
        return Proxy(any_free(), ("127.0.0.1", port))

    def _servers(self) -> tuple[EmbeddedPostgres, EmbeddedValkey]:
        log = self.home / "log"
        postgres = EmbeddedPostgres(
            self.home / "postgres", log=log / "postgres.log", port=any_free(), settings=self.database_settings
        )
        return postgres, EmbeddedValkey(self.home / "valkey", log=log / "valkey.log", port=any_free())

    def _addresses(self) -> dict[str, str]:
        broker = f"redis://127.0.0.1:{self.broker_proxy.port}"
        return {
            "DATABASE_URL": f"postgres://chaski@127.0.0.1:{self.database.port}/chaski",
            "CHASKI_BROKER_URL": f"{broker}/0",
            "CHASKI_CACHE_URL": f"{broker}/1",
            "CHASKI_CRASH_FOLDER": str(self.crashes),
        }

    @property
    def url(self) -> str:
        """Where clients and vendors find the web process: the proxy before it."""
        return f"http://127.0.0.1:{self.api.port}"

    @property
    def vendor_url(self) -> str:
        """Where the accounts find their vendors: the proxy before the simulator."""
        return f"http://127.0.0.1:{self.vendor.port}"

    def processes(self) -> list[Process]:
        """As in production, and two relays."""
        usual = [process for process in super().processes() if process.name != "relay"]
        relays = [replace(processes.relay(), name=name) for name in RELAYS]
        return [*usual, *relays, processes.beat(str(self.home / "beat-schedule"))]

    def __enter__(self) -> Self:
        with self._stack:
            for proxy in self.proxies:
                self._stack.enter_context(proxy)
            self._stack.enter_context(
                patch.object(supervisor, "LONGEST_PAUSE_SECONDS", 1.0)
            )  # they are killed on purpose
            kept = self._stack.pop_all()
        with kept:
            super().__enter__()
            self._stack.push(kept.pop_all())
        return self

    # -- what is done to it

    def crash_at(self, point: str, word: str = "", *, number: signal.Signals = signal.SIGKILL, times: int = 1) -> None:
        """The next process that reaches ``point`` (about a recipient with ``word``) gets the signal, ``times`` over."""
        for each in range(times):
            unfinished = self.crashes / f"unfinished.{each}"
            unfinished.write_text(json.dumps({"word": word, "signal": int(number)}))
            unfinished.rename(self.crashes / f"{point}.{time.monotonic_ns()}")

    def crashed(self, point: str, times: int = 1) -> list[int]:
        """Wait until ``times`` processes have reached ``point``; their pids."""
        return wait_for(lambda: self._crashed(point, times), 20, f"a process at {point}")

    def _crashed(self, point: str, times: int) -> list[int]:
        found = [int(file.name.split(".")[1]) for file in self.crashes.glob(f"taken.*.{point}.*")]
        return found if len(found) >= times else []

    def pids(self) -> dict[str, int]:
        """The process id of everything that runs."""
        return {name: child.popen.pid for name, child in self.supervisor.children.items()}

    def name_of(self, pid: int) -> str:
        """The process that ``pid`` is, or was when its supervisor last looked."""
        return next((name for name, known in self.pids().items() if known == pid), "")

    @contextmanager
    def more_workers(self, *numbers: int) -> Iterator[None]:
        """Run with further workers, ready before the block begins."""
        for number in numbers:
            self.supervisor.start(processes.worker(number))
        self.workers_are_ready()
        try:
            yield
        finally:
            for number in numbers:
                self.supervisor.end(f"worker{number}")

    @contextmanager
    def paused(self, service_id: int) -> Iterator[None]:
        """Have nothing of a service claimed, as `manage.py pause` would; everything is due and rung for all the same."""
        with psycopg.connect(self.postgres.socket_url, autocommit=True) as connection:
            connection.execute("INSERT INTO pause (scope, value, actor) VALUES ('service', %s, '')", [str(service_id)])
            time.sleep(PAUSE_SECONDS)
            try:
                yield
            finally:
                connection.execute("DELETE FROM pause WHERE scope = 'service' AND value = %s", [str(service_id)])

    @contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """Stop processes for the length of the block."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Run without these processes."""
        ended = [self.supervisor.children[name].process for name in names]
        for name in names:
            self.supervisor.end(name)
        try:
            yield
        finally:
            for process in ended:
                self.supervisor.start(process)

    @contextmanager
    def queues(self) -> Iterator[redis.Redis]:
        """A client of the broker's queues, past the proxy, wherever that leads."""
        host, port = self.broker_proxy.target
        client = redis.Redis(host=host, port=port, db=0)
        try:
            yield client
        finally:
            client.close()

    def heard(self) -> list[str]:
        """Every line that a process has written so far."""
        with self._lock:
            return list(self.lines)

    # -- how it gets well, and how one sees that it is

    def heal(self) -> None:
        """Everything runs and passes again. What is down and has no supervisor is started."""
        for file in self.crashes.iterdir():
            file.unlink(missing_ok=True)
        for proxy in self.proxies:
            proxy.heal()
        for server in (self.postgres, self.valkey):
            os.kill(server.process.pid, signal.SIGCONT) if server.running else server.start()
        for child in list(self.supervisor.children.values()):
            if child.running:
                child.popen.send_signal(signal.SIGCONT)
        self.forget_crashes()
        wait_for(lambda: all(child.running for child in list(self.supervisor.children.values())), 60, "every process")
        self.workers_are_ready()
        self.spares.close()

    def forget_crashes(self) -> None:
        """Let each process's next crash be its first one to the supervisor, which waits longer after each."""
        for child in list(self.supervisor.children.values()):
            child._backoff = Backoff()

    def ready_workers(self) -> list[str]:
        """The workers that consume: they have left a sign of life since their process began."""
        seen = (
            "SELECT split_part(name, '@', 1), extract(epoch FROM now() - seen_at) FROM heartbeat WHERE kind = 'worker'"
        )
        alive = {name: child.popen.pid for name, child in list(self.supervisor.children.items()) if child.running}
        return [name for name, ago in self.query(seen) if name in alive and float(ago) < _age(alive[name])]

    def workers_are_ready(self, count: int | None = None, seconds: float = 60) -> None:
        """Wait until ``count`` workers consume, or all of them."""
        wanted = count or sum(name.startswith("worker") for name in self.supervisor.children)
        wait_for(lambda: len(self.ready_workers()) >= wanted, seconds, f"{wanted} workers that consume")

    def violations(self) -> list[ledger.Violation]:
        """What the ledger finds, read past the proxies by the same code as `manage.py ledger`."""
        with psycopg.connect(self.postgres.socket_url) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return self.examined(cursor)

    @staticmethod
    def examined(cursor: Any) -> list[ledger.Violation]:
        """The ledger's check on ``cursor``."""
        found = ledger.examine(cursor)
        if found.balanced or found.violations:
            return found.violations
        return [ledger.Violation(1, "all", f"does not balance: {found.as_dict()}")]

    def must_balance(self) -> None:
        """Wait until the ledger finds nothing wrong; fails with what it finds."""
        try:
            wait_for(lambda: not self.violations(), 20, "a balanced ledger")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.violations()}\n{self.log()}") from error
        assert self.lost() == [], "clients were told of these, and they are not there"

    def lost(self) -> list[str]:
        """Messages that clients were told of since the last look, by their own books, and that the database does not have."""
        told, self._looked_until = self.told.since(self._looked_until)
        sql = "SELECT t::text FROM unnest(%s::uuid[]) t WHERE NOT EXISTS (SELECT FROM message WHERE id = t) LIMIT 20"
        return [row[0] for row in self.query(sql, list(told))]

    def books_agree(self, *, only_simulator: bool = False) -> None:
        """`manage.py ledger` against what clients were told, and what the simulator accepted if no other vendor was played.

        Fails with what it finds.
        """
        files = ["--told", str(self.told.path), *(["--accepted", str(self.accepts)] if only_simulator else [])]
        found = self.manage.run("ledger", *files, "--json", codes=(0, 1)).document
        assert found["balanced"], found


def _age(pid: int) -> float:
    """Seconds since the process began (proc(5), field 22); none when it is gone."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
