"""taskiq, dramatiq and procrastinate draining the same messages: behind ``--peers``, beside S1.

Measured by the sink's clock from the first call to the last, so that none pays for its start.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import verify
from benchmarks.processes import ROOT, Running
from benchmarks.run import Stage
from benchmarks.subject import inside
from benchmarks.yardsticks import need
from config import local
from config.processes import Process

REDIS = 3
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Library:
    """One project under ``benchmarks/peers``. ``command`` follows the interpreter's ``-m``."""

    name: str
    package: str
    command: tuple[str, ...]
    needs: tuple[str, ...]

    def check(self) -> None:
        """Raises ``NotInstalled``."""
        need(self.name, *self.needs)

    def drain(self, on: Stage, count: int) -> float:
        """One verified run; messages per second."""
        on.servers.create(self.package)
        on.servers.client(REDIS).flushdb()
        on.sink.reset()
        environment = {
            **local.for_children({}),
            "DATABASE_URL": on.servers.database(self.package),
            "REDIS_URL": f"unix://{on.servers.valkey.socket}?db={REDIS}",
            "PROVIDER_URL": on.sink.url("d50"),
            "PYTHONPATH": str(ROOT),
        }
        inside(environment, f"benchmarks.peers.{self.package}.fill", str(count))
        on.servers.settle(self.package)
        process = Process("peer", ("python", "-m", *self.command), grace_seconds=20)
        with Running([process], environment, broker="memory://", logs=on.home / "log" / self.package) as running:
            self._wait(on, count, running)
        wrong = verify.sink_saw_each_once(on.sink, {str(number) for number in range(count)})
        if wrong:
            raise verify.Unsound(f"{self.name}: {'; '.join(wrong)}")
        return (count - 1) / on.sink.seen().seconds

    def _wait(self, on: Stage, count: int, running: Running) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while on.sink.seen().distinct < count:
            running.all_alive()
            if time.monotonic() > until:
                raise verify.Unsound(f"{self.name} does not end.\n{running.last_lines()}")
            time.sleep(0.2)
        time.sleep(1.0)  # a call too many would come now


APPS = "benchmarks.peers"
LIBRARIES = (
    Library(
        "taskiq, 2 processes of 100",
        "with_taskiq",
        ("taskiq", "worker", f"{APPS}.with_taskiq.app:broker", "--workers", "2", "--max-async-tasks", "100"),
        ("taskiq", "taskiq_redis"),
    ),
    Library(
        "dramatiq, 2 processes of 16 threads",
        "with_dramatiq",
        ("dramatiq", f"{APPS}.with_dramatiq.app", "--processes", "2", "--threads", "16"),
        ("dramatiq", "requests"),
    ),
    Library(
        "procrastinate, 32 at once",
        "with_procrastinate",
        ("procrastinate", f"--app={APPS}.with_procrastinate.app.app", "worker", "--concurrency", "32"),
        ("procrastinate",),
    ),
)
