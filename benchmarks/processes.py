"""Worker processes under measurement: started warm, held by taking their queue from them, let go, their CPU counted.

Used for Chaski and for every yardstick on Celery alike, so that all are held and let go in the same way.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from celery import Celery

from benchmarks.cpu import cpu_seconds, resident_bytes
from config.processes import Process
from config.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 60.0
#: After the last worker answers its imports and first statements are over.
CALM_SECONDS = 2.0


class WorkersLost(RuntimeError):
    """Workers did not come up, or one ended during a run; what they said is in the message."""


class Running:
    """Processes of one application. Started by ``with``; ends them all."""

    def __init__(
        self,
        processes: Sequence[Process],
        environment: Mapping[str, str],
        *,
        broker: str,
        logs: Path,
        port: int | None = None,
    ) -> None:
        self._processes = processes
        self._port = port
        self._lines: list[str] = []
        #: Queue -> the workers that it was taken from.
        self._held: dict[str, list[str]] = {}
        self._logs = logs
        self._celery = Celery(broker=broker, set_as_current=False)
        self._supervisor = Supervisor(environment, folder=ROOT, logs=logs, show=self._show)

    def __enter__(self) -> Self:
        self._supervisor.__enter__()
        try:
            for process in self._processes:
                self._supervisor.start(process)
            self._started = self.pids()
            self._wait()
        except BaseException:
            self._supervisor.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.stop()
        self._celery.close()

    def _show(self, name: str, line: str) -> None:
        self._lines.append(f"{name}: {line}")

    @property
    def workers(self) -> list[str]:
        """The names of the worker processes among them."""
        return [process.name for process in self._processes if process.name.startswith("worker")]

    def pids(self, prefix: str = "") -> list[int]:
        """The processes whose name begins with ``prefix``."""
        children = self._supervisor.children
        return [child.popen.pid for name, child in children.items() if name.startswith(prefix)]

    def cpu(self, prefix: str = "worker") -> float:
        """CPU seconds of the processes whose name begins with ``prefix``, and of what they started."""
        return cpu_seconds(self.pids(prefix))

    def memory(self, prefix: str = "worker") -> int:
        """Their resident bytes."""
        return resident_bytes(self.pids(prefix))

    def hold(self, queue: str) -> None:
        """Take ``queue`` from the workers that have it: they stay up, warm and connected, and get none of its tasks."""
        queues = self._inspect("active_queues")
        self._held[queue] = [name for name, taken in queues.items() if queue in {each["name"] for each in taken}]
        self._broadcast("cancel_consumer", queue)

    def let_go(self, queue: str) -> None:
        """Give ``queue`` back to them. Returns when all have said that they have it."""
        self._broadcast("add_consumer", queue)

    def tasks(self) -> int:
        """Tasks that the workers have been given since they started."""
        answers = self._inspect("stats")
        return sum(sum(answer["total"].values()) for answer in answers.values())

    def all_alive(self) -> None:
        """Raises ``WorkersLost`` when a process is not the one that was started."""
        if self.pids() != self._started:
            raise WorkersLost(f"A process ended during the run; see {self._logs}.\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of what they said."""
        return "\n".join(self._lines[-30:])

    def _wait(self) -> None:
        wanted = len(self.workers)
        until = time.monotonic() + WAIT_SECONDS
        while wanted and len(self._celery.control.ping(timeout=1.0, limit=wanted) or ()) < wanted:
            if time.monotonic() > until:
                raise WorkersLost(f"Not all of {wanted} workers answer; see {self._logs}.\n{self.last_lines()}")
        while self._port and not _listens(self._port):
            if time.monotonic() > until:
                raise WorkersLost(f"Nobody listens on port {self._port}; see {self._logs}.\n{self.last_lines()}")
            time.sleep(0.1)
        time.sleep(CALM_SECONDS)

    def _broadcast(self, command: str, queue: str) -> None:
        to = self._held[queue]
        answers = self._celery.control.broadcast(
            command, arguments={"queue": queue}, destination=to, reply=True, timeout=5.0, limit=len(to)
        )
        if not to or len(answers or ()) < len(to):
            raise WorkersLost(f"{command} was heard by {len(answers or ())} of {len(to)} workers.\n{self.last_lines()}")

    def _inspect(self, what: str) -> Mapping[str, Any]:
        inspect = self._celery.control.inspect(timeout=5.0, limit=len(self.workers))
        return getattr(inspect, what)() or {}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
