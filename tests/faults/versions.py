"""Two releases on one database and one broker: the recorded earlier one from its own files, and the code here.

Both run with the same interpreter, the same variables and, as behind a balancer, the same port. Used by the tests beside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psycopg

from config import local, processes
from config.management import Management
from config.processes import Process
from config.supervisor import Supervisor
from tests.processes.system import ROOT, System, Tenant, wait_for

#: Who waits for a lock now, and for how long. Waiting for a transaction to end (virtualxid) is what an index that is made beside
#: its writers does: nobody stands behind it.
WAITING = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
FROM pg_locks WHERE NOT granted AND locktype <> 'virtualxid'
"""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of the code, and the processes that it brings."""

    name: str
    folder: Path
    first_worker: int

    def workers(self) -> list[Process]:
        return [processes.worker(self.first_worker + n) for n in range(2)]

    def relay(self) -> Process:
        return processes.relay()

    def web(self, port: int) -> Process:
        web = processes.web(f"127.0.0.1:{port}")
        return replace(web, command=(*web.command, "--reuse-port"))


class Versions(System):
    """The servers, the simulator and, at the start, the old release alone on its own schema."""

    def __init__(self, home: Path, old: Path) -> None:
        super().__init__(home)
        self.old = Release("old", old, 1)
        self.new = Release("new", ROOT, 11)

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self.postgres)
            self._stack.enter_context(self.valkey)
            self.environment = self._variables()
            self.manage = Management(self.old.folder, self.environment)
            self.manage.run("migrate", "--noinput")
            self.supervisor = self._supervisor(ROOT)
            self.supervisors = {release.name: self._supervisor(release.folder) for release in (self.old, self.new)}
            self.supervisor.start(self.processes()[0])
            self.start_all(self.old)
            self._stack = self._stack.pop_all()
        return self

    def _supervisor(self, folder: Path) -> Supervisor:
        logs = self.home / "log" / folder.name
        return self._stack.enter_context(Supervisor(self.environment, folder=folder, logs=logs, show=self._show))

    def manage_of(self, release: Release) -> Management:
        """`manage.py` of one release."""
        return Management(release.folder, self.environment)

    def start_all(self, release: Release) -> None:
        """Every process of ``release``, in the documented order."""
        for worker in release.workers():
            self.start(release, worker)
        self.start(release, release.relay())
        self.start(release, release.web(self.ports.web))

    def start(self, release: Release, process: Process) -> None:
        """Start one and wait until it works."""
        before = self.query("SELECT now()")[0][0]
        child = self.supervisors[release.name].start(process)
        if process.name == "web":
            wait_for(lambda: self._serves(child.popen.pid), 60, f"the web process of the {release.name} release")
            local.wait_until_ready(f"{self.url}/health/ready")
        else:
            name = f"{process.name}@%" if process.name.startswith("worker") else f"relay@%:{child.popen.pid}"
            sql = "SELECT count(*) FROM heartbeat WHERE name LIKE %s AND seen_at > %s"
            wait_for(lambda: self.query(sql, name, before)[0][0], 90, f"{process.name} of the {release.name} release")

    @staticmethod
    def _serves(pid: int) -> bool:
        """Has gunicorn started those who answer?"""
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return len(children.read_text().split()) >= 2

    def stop(self, release: Release, name: str) -> None:
        """Ask one to end, as a deployment does, and wait for it."""
        self.supervisors[release.name].end(name)

    def roll(self, leaving: Release, coming: Release) -> None:
        """Process by process, workers first and those who ring last."""
        self._roll_workers(leaving, coming)
        for process in (coming.relay(), coming.web(self.ports.web)):
            self.start(coming, process)
            self.stop(leaving, process.name)

    def roll_back(self, leaving: Release, coming: Release) -> None:
        """The other way round: those who ring first, workers last."""
        for process in (coming.web(self.ports.web), coming.relay()):
            self.start(coming, process)
            self.stop(leaving, process.name)
        self._roll_workers(leaving, coming)

    def _roll_workers(self, leaving: Release, coming: Release) -> None:
        for there, here in zip(leaving.workers(), coming.workers(), strict=True):
            self.start(coming, here)
            self.stop(leaving, there.name)

    def running(self) -> set[str]:
        """Which releases have a process."""
        return {name for name, supervisor in self.supervisors.items() if supervisor.children}

    @contextmanager
    def locks_watched(self) -> Iterator[list[float]]:
        """Gives how long anybody waited for a lock at each of many looks; the longest is ``max``."""
        seen, stop = [0.0], threading.Event()

        def look() -> None:
            with psycopg.connect(self.postgres.socket_url, autocommit=True) as connection:
                while not stop.is_set():
                    row = connection.execute(WAITING).fetchone()
                    seen.append(row[0] if row else 0.0)
                    stop.wait(0.02)

        watcher = threading.Thread(target=look, name="locks", daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join(10)


class Load:
    """A client that sends without pause, one and many by turns, while the block runs. ``told`` are the ids it was told."""

    def __init__(self, shop: Tenant) -> None:
        self.told: list[str] = []
        self._shop = shop
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure

    def more(self, count: int = 60) -> None:
        """Wait until so many more are accepted."""
        wanted = len(self.told) + count
        wait_for(lambda: self._failure or len(self.told) >= wanted, 60, f"the acceptance of {count} more")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.told.extend(self._shop.send_many(10))
                self.told.append(str(self._shop.send("sms", "+56912345678").id))
                time.sleep(0.05)
        except Exception as error:  # noqa: BLE001 - raised again where the block ends
            self._failure = error
