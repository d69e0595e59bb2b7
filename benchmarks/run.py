"""What every benchmark is given: how much to do, where to work, and a way to say what is going on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Finding
from benchmarks.servers import Servers
from benchmarks.sink_process import Sink
from benchmarks.subject import Subject

_begun = time.monotonic()


@dataclass(frozen=True, slots=True)
class Run:
    """One call of the command. ``pairs`` and ``messages`` are None where each benchmark shall take its own number."""

    pairs: int | None
    messages: int | None
    workers: int
    peers: bool

    def turns(self, usual: int = 5) -> int:
        """How often to measure: as asked, else ``usual``."""
        return self.pairs or usual

    def count(self, usual: int) -> int:
        """How many messages: as asked, else ``usual``."""
        return self.messages or usual


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers, sink and Chaski, all started for one benchmark."""

    home: Path
    servers: Servers
    sink: Sink
    chaski: Subject


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A name of the command line and what it runs."""

    name: str
    words: str
    measure: Callable[[Run], list[Finding]]


def say(words: str) -> None:
    """One line of progress on stderr."""
    print(f"{time.monotonic() - _begun:7.1f} s  {words}", file=sys.stderr, flush=True)


@contextmanager
def stage(run: Run) -> Iterator[Stage]:
    """A stage in a temporary folder, gone afterwards."""
    with TemporaryDirectory(prefix="chaski-bench-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        home = Path(folder)
        home.chmod(0o755)  # PostgreSQL refuses to be root and is somebody else then
        say("starting PostgreSQL, Valkey and the sink, migrating")
        servers = stack.enter_context(Servers(home))
        sink = stack.enter_context(Sink())
        yield Stage(home, servers, sink, Subject(servers, home, workers=run.workers))
