"""Bare Celery, naive and tuned Django + Celery: held, let go and measured as Chaski is. Used by the drain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec

from benchmarks import verify
from benchmarks.processes import ROOT, Running
from benchmarks.run import Stage
from benchmarks.servers import Servers
from benchmarks.subject import inside
from config import local
from config.processes import Process

QUEUE = "celery"
BROKER = 2
QUIET = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")
INSTALL = ".venv/bin/python -m pip install -r benchmarks/requirements.txt"


class NotInstalled(RuntimeError):
    """A yardstick needs packages that Chaski does not; the message names the command that installs them."""


def need(who: str, *modules: str) -> None:
    """Raises ``NotInstalled`` where one of ``modules`` is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise NotInstalled(f"{who} needs {', '.join(missing)}; install what yardsticks need with: {INSTALL}")


@dataclass(frozen=True, slots=True)
class Yardstick:
    """One project under ``benchmarks/peers``. ``options`` are its worker's; ``table`` is empty where it keeps no rows."""

    name: str
    words: str
    package: str
    options: tuple[str, ...]
    unit: str = "messages/s"
    table: str = ""
    needs: tuple[str, ...] = ()
    instances: int | None = None

    def check(self) -> None:
        """Raises ``NotInstalled``."""
        need(self.name, *self.needs)

    def drain(self, on: Stage, count: int, workers: int, *, delay: str = "d50") -> float:
        """One verified run of ``count`` tasks, by as many worker processes as Chaski has; tasks per second."""
        environment = self._environment(on, delay)
        self._prepare(on.servers, environment)
        on.sink.reset()
        processes = [self._worker(number) for number in range(1, (self.instances or workers) + 1)]
        broker = environment["CELERY_BROKER_URL"]
        with Running(processes, environment, broker=broker, logs=on.home / "log" / self.package) as running:
            running.hold(QUEUE)
            inside(environment, f"benchmarks.peers.{self.package}.fill", str(count))
            on.servers.settle(self.package if self.table else "chaski")
            begun = _now(on.servers)
            running.let_go(QUEUE)
            ended = self._wait(on, count)
            running.all_alive()
        if self.table:
            verify.yardstick_sent_each_once(on.servers, self.package, self.table, on.sink)
        return count / (ended - begun).total_seconds()

    def _environment(self, on: Stage, delay: str) -> dict[str, str]:
        given = {
            "CELERY_BROKER_URL": on.servers.broker(BROKER),
            "PROVIDER_URL": on.sink.url(delay),
            "PYTHONPATH": str(ROOT),
        }
        if self.table:
            given["DATABASE_URL"] = on.servers.database(self.package)
            given["DJANGO_SETTINGS_MODULE"] = f"benchmarks.peers.{self.package}.settings"
        others = {name: value for name, value in local.for_children({}).items() if name != "DJANGO_SETTINGS_MODULE"}
        return others | given

    def _prepare(self, servers: Servers, environment: Mapping[str, str]) -> None:
        servers.client(BROKER).flushdb()
        if self.table:
            servers.create(self.package)
            inside(environment, "benchmarks.peers.migrate")

    def _worker(self, number: int) -> Process:
        command = ("celery", "-q", "-A", f"benchmarks.peers.{self.package}", "worker", "-n", f"worker{number}@%h")
        return Process(f"worker{number}", (*command, *self.options, *QUIET), stage=1, grace_seconds=20)

    def _wait(self, on: Stage, count: int) -> datetime:
        """When the last task ended, by PostgreSQL's clock: the commit of the last row, or the last acknowledgement."""
        client = on.servers.client(BROKER)
        until = time.monotonic() + 1800
        while client.llen(QUEUE) or client.hlen("unacked"):
            if time.monotonic() > until:
                raise verify.Unsound(f"the {count} tasks of {self.name} do not end")
            time.sleep(0.02 if not self.table else 0.2)
        if not self.table:
            return _now(on.servers)
        last = f"SELECT max(pg_xact_commit_timestamp(xmin)) FROM {self.table}"
        ended: datetime = on.servers.query(last, database=self.package)[0][0]
        return ended


def _now(servers: Servers) -> datetime:
    moment: datetime = servers.query("SELECT clock_timestamp()")[0][0]
    return moment


CELERY_NOOP = Yardstick(
    name="bare Celery no-op",
    words="no-op tasks without results or events, as many worker processes with as many threads as Chaski",
    package="celery_noop",
    options=("--pool", "threads", "--concurrency", "32"),
    unit="tasks/s",
)
TUNED = Yardstick(
    name="tuned Django + Celery",
    words="one task per message, kept-open connections, no results, as many processes and threads as Chaski",
    package="tuned",
    options=("--pool", "threads", "--concurrency", "32"),
    table="sms",
    needs=("requests",),
)
NAIVE = Yardstick(
    name="naive Django + Celery",
    words="a row, a task and a result row per message, prefork with 8 processes",
    package="naive",
    options=("--concurrency", "8"),
    table="sms",
    needs=("requests",),
    instances=1,
)
