"""The sink as a benchmark sees it: a child process with an address, counts and CPU time. Used by every benchmark that sends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any, Self

import urllib3

from config.embedded.process import spawn

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sink saw since it was last reset. ``seconds`` lie between its first and its last call."""

    calls: int
    distinct: int
    duplicates: int
    nameless: int
    seconds: float
    #: Calls in each tenth of a second.
    timeline: tuple[int, ...]
    cpu_seconds: float


class Sink:
    """One sink process, started by ``with``."""

    def __enter__(self) -> Self:
        self._process = spawn(
            [sys.executable, "-m", "benchmarks.sink"],
            on_parent_death=SIGTERM,
            environment={"PYTHONPATH": str(ROOT), "PATH": ""},
            folder=ROOT,
            output=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._pool = urllib3.PoolManager(timeout=30.0, retries=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    @property
    def pid(self) -> int:
        """Its process, for its CPU time."""
        return self._process.pid

    def url(self, delay: str) -> str:
        """Where a provider that answers after ``delay`` is: ``d50`` is 50 ms, ``dead`` never."""
        return f"http://127.0.0.1:{self.port}/{delay}"

    def reset(self) -> None:
        """Forget everything but the CPU time."""
        self._ask("reset")

    def seen(self) -> Seen:
        """What it saw until now."""
        told: dict[str, Any] = self._ask("").json()
        return Seen(**{**told, "timeline": tuple(told["timeline"])})

    def ids(self) -> set[str]:
        """The identities of all calls."""
        return set(self._ask("ids").data.decode().split())

    def _ask(self, what: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", f"http://127.0.0.1:{self.port}/control/{what}".rstrip("/"))
