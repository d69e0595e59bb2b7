"""Keeps processes and embedded servers running until told to stop. Used by `bin/up` and the fault tests."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from itertools import groupby
from logging.handlers import RotatingFileHandler
from pathlib import Path
from signal import Signals
from typing import Self

from config.embedded import ServerStartError
from config.embedded.process import kill_group, spawn
from config.embedded.server import EmbeddedServer
from config.processes import Process

LOOK_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # having run this long, a crash counts as the first one again
LAST_LINES_SECONDS = 2.0
LARGEST_LOG = 10_000_000

Show = Callable[[str, str], None]  # the process's name and one line, without its end


class Backoff:
    """How long to wait before the next start: 1 s, doubling to 30 s, from the start again after a steady
    minute.
    """

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._started = time.monotonic()

    def started(self) -> None:
        self._started = time.monotonic()

    def pause(self) -> float:
        if time.monotonic() - self._started > STEADY_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        return pause


class Child:
    """One process under supervision: its log, its crashes, its next start."""

    def __init__(
        self, process: Process, environment: Mapping[str, str], *, folder: Path, log: Path, show: Show
    ) -> None:
        self.process = process
        self._environment = environment
        self._folder = folder
        self._show = show
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._backoff = Backoff()
        self._due: float | None = None
        self._lock = threading.Lock()
        self._over = False
        self.popen = self._start()

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def look(self) -> None:
        """Notice a crash, and start again what waited long enough."""
        with self._lock:
            if not (self.running or self._over):
                self._recover()

    def _recover(self) -> None:
        if self._due is None:
            kill_group(self.popen)  # what it started may still hold its port
            pause = self._backoff.pause()
            self._due = time.monotonic() + pause
            self._show(self.process.name, f"{_how_it_ended(self.popen)}; starting it again in {pause:.0f} s")
        elif time.monotonic() >= self._due:
            self._due = None
            self.popen = self._start()

    def ask_to_end(self) -> None:
        """Send it SIGTERM; it is not started again."""
        with self._lock:
            self._over = True
        self.popen.send_signal(Signals.SIGTERM)  # does nothing when it has ended

    def end_by(self, deadline: float) -> None:
        """Wait until then for its end, kill what is left of its group."""
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._show(self.process.name, f"did not end within {self.process.grace_seconds:.0f} s; killed")
        kill_group(self.popen)
        self._reader.join(LAST_LINES_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        popen = spawn(
            self.process.arguments,
            on_parent_death=self.process.on_parent_death,
            environment=self._environment,
            folder=self._folder,
            output=subprocess.PIPE,
        )
        self._backoff.started()
        name = f"{self.process.name}-log"
        self._reader = threading.Thread(target=self._copy_lines, args=(popen,), name=name, daemon=True)
        self._reader.start()
        return popen

    def _copy_lines(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout is not None
        log = RotatingFileHandler(self._log, maxBytes=LARGEST_LOG, backupCount=1, delay=True)
        with popen.stdout as lines, closing(log):
            for raw in lines:
                line = raw.decode(errors="replace").rstrip()
                log.emit(logging.makeLogRecord({"msg": line}))
                with suppress(OSError):  # nobody looks any more; the process must not stop at a full pipe
                    self._show(self.process.name, line)


class Supervisor:
    """Starts processes, starts them again after a crash, ends them in order. A context manager.

    Every process sees exactly ``environment``, runs in ``folder``, writes to ``logs``/NAME.log and to
    ``show``, which is called from several threads. Not one of them outlives this process, not even after a
    `kill -9`. ``servers`` are already started; they are watched too, and stay running at the end for their
    owner to stop.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        folder: Path,
        logs: Path,
        show: Show,
        servers: Iterable[EmbeddedServer] = (),
    ) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self._logs = logs
        self._show = show
        self._servers = {server: Backoff() for server in servers}
        self._server_due: dict[EmbeddedServer, float] = {}
        self.children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, process: Process) -> Child:
        """Start it and keep it running."""
        child = Child(
            process,
            self._environment,
            folder=self._folder,
            log=self._logs / f"{process.name}.log",
            show=self._show,
        )
        with self._lock:
            self.children[process.name] = child
        return child

    def end(self, name: str) -> None:
        """End one for good, as at the end of everything."""
        with self._lock:
            child = self.children.pop(name)
        _end_together([child])

    def stop(self) -> None:
        """End everything, stage by stage; nothing is started again. Returns when the last is reaped."""
        self._ending.set()
        self._watcher.join(LOOK_SECONDS + 5)  # it may be waiting for a server that recovers
        by_stage = sorted(self.children.values(), key=lambda child: child.process.stage)
        for _, together in groupby(by_stage, key=lambda child: child.process.stage):
            _end_together(list(together))
        self.children.clear()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            for server in self._servers:
                self._look_after(server)
            with self._lock:
                children = list(self.children.values())
            for child in children:
                child.look()

    def _look_after(self, server: EmbeddedServer) -> None:
        if server.running:
            return
        due = self._server_due.get(server)
        if due is None:
            pause = self._servers[server].pause()
            self._server_due[server] = time.monotonic() + pause
            self._show(server.name, f"{_how_it_ended(server.process)}; starting it again in {pause:.0f} s")
        elif time.monotonic() >= due:
            del self._server_due[server]
            self._servers[server].started()
            try:
                server.start()
            except ServerStartError as error:
                self._show(server.name, str(error))


def _end_together(children: list[Child]) -> None:
    asked = time.monotonic()
    for child in children:
        child.ask_to_end()
    for child in children:
        child.end_by(asked + child.process.grace_seconds)


def _how_it_ended(popen: subprocess.Popen[bytes]) -> str:
    code = popen.returncode
    if code is not None and code < 0:
        return f"was ended by {Signals(-code).name}"
    return f"ended with code {code}"
