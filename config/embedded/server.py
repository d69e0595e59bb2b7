"""What both embedded servers share: start, wait until it answers, stop, kill, start again, on one folder.

The lock file beside the data folder is held by us *and* inherited by the server and its children. So it is
free exactly when the last of them is gone, also after a `kill -9` of any of them, and no process id needs to
be trusted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import ClassVar, Self

from config.embedded import process
from config.embedded.errors import InUseError, ServerStartError
from config.embedded.sockets import make_private, socket_folder

LINGER_SECONDS = 10.0  # how long the children of a killed server may take to notice
READY_SECONDS = 120.0  # recovery after a crash replays what was written since the last checkpoint
STOP_SECONDS = 30.0
LARGEST_LOG = 10_000_000  # bytes; a longer one is set aside as `.1` at the next start


class EmbeddedServer(ABC):
    """One server on one data folder, a direct child of this process.

    It dies with us: `kill -9` of this process makes the kernel send it ``stop_signal``. Not for several
    threads at once.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[Signals]

    def __init__(self, data: Path, *, log: Path) -> None:
        self.data = data.absolute()
        self.log = log.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._sockets: Path | None = None

    @abstractmethod
    def _prepare(self, lock: int) -> None:
        """Make the data folder, once. ``lock`` is the held lock, for children to inherit."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server itself, in the foreground, logging to its streams."""

    @abstractmethod
    def _answers(self) -> bool:
        """Does it serve?"""

    def _complete(self) -> None:  # noqa: B027 - a hook that Valkey does not need
        """What is still missing once it answers."""

    def _environment(self) -> Mapping[str, str]:
        """Everything the server sees; the caller's own variables (PGDATA, PGOPTIONS...) must not reach it."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process (PostgreSQL: the postmaster). It may have died: ask `running`."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def sockets(self) -> Path:
        """The private folder of its socket, the same across restarts."""
        if self._sockets is None:
            self._sockets = socket_folder(self.data)
        return self._sockets

    def start(self) -> None:
        """Start it and return once it answers. Does nothing when it runs. Raises `ServerStartError`."""
        if self.running:
            return
        self._release()
        self._lock = self._acquire()
        try:
            self._prepare(self._lock)
            self._launch(self._lock)
            self._complete()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it cleanly, or kill it after 30 s, and give the folder back. Safe to repeat."""
        if self._process is not None:
            process.stop(self._process, self.stop_signal, STOP_SECONDS)
        self._release()
        with suppress(OSError):  # after a kill the socket is still in it
            self.sockets.rmdir()

    def kill(self) -> None:
        """``kill -9``, as a crash would. `start` brings it back with what was committed."""
        self.process.kill()
        self.process.wait()
        self._release()

    def drop(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        lock = self._acquire()
        try:
            if self.data.exists():
                shutil.rmtree(self.data)
        finally:
            os.close(lock)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _acquire(self) -> int:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        lock = self.data.with_name(self.data.name + ".lock")
        try:
            return process.acquire(lock, wait_seconds=LINGER_SECONDS)
        except InUseError:
            raise ServerStartError(
                f"{self.name} in {self.data} is still used by another process, which holds {lock}. "
                "Stop the other Chaski (Ctrl-C where `bin/up` runs) and start again."
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _launch(self, lock: int) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _set_aside(self.log)
        make_private(self.sockets)
        with self.log.open("ab") as output:
            self._process = process.spawn(
                self._command(),
                on_parent_death=self.stop_signal,
                environment=self._environment(),
                folder=self.data,
                output=output,
                keep_open=(lock,),
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if not self.running:
                raise ServerStartError(f"{self.name} ended at its start. {self._last_words()}")
            if time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} did not answer for {READY_SECONDS:.0f} s. {self._last_words()}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-6:] if self.log.exists() else []
        return f"The end of {self.log}:\n  " + "\n  ".join(lines)


def _set_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_name(log.name + ".1"))
