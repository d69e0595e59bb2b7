"""Child processes that never outlive us, and the lock that tells whether they are gone.

Used by the embedded servers and by `config.supervisor`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from signal import Signals
from typing import IO

from config.embedded.errors import InUseError

LAUNCHER = Path(__file__).with_name("launch.py")


@cache
def _spawner(_pid: int) -> ThreadPoolExecutor:
    """One thread that lives as long as this process, per process id because a fork does not copy it.

    Linux sends the parent-death signal when the *thread* that started the child ends (prctl(2)), so a child
    started from a short-lived thread would die with that thread.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def spawn(
    command: Sequence[str],
    *,
    on_parent_death: Signals,
    environment: Mapping[str, str],
    folder: Path,
    output: IO[bytes] | int,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; it gets ``on_parent_death`` however this process ends.

    ``output`` takes both its streams. ``environment`` is everything it sees. The descriptors of ``keep_open``
    stay open in it. May be called from any thread. The caller must ``wait()`` on what it gets, or a zombie
    stays.
    """
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(int(on_parent_death)), str(os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - an argument list, never a shell
            [*launch, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            pass_fds=keep_open,
            start_new_session=True,
        )

    return _spawner(os.getpid()).submit(start).result()


def stop(process: subprocess.Popen[bytes], signal: Signals, grace_seconds: float) -> None:
    """Ask with ``signal``, wait, kill after the grace; on return the process is reaped."""
    if process.poll() is None:
        process.send_signal(signal)
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and whatever it started in its session's group, and reap it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, Signals.SIGKILL)
    process.wait()


def acquire(path: Path, *, wait_seconds: float = 0) -> int:
    """Lock the file and return its descriptor.

    Closing it, in every process that inherited it, gives the lock back; the file itself stays. Raises
    `InUseError` when somebody still holds it after ``wait_seconds``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            raise InUseError(str(path)) from None
        return descriptor


@contextmanager
def locked(path: Path, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock of `acquire` for the length of the block."""
    descriptor = acquire(path, wait_seconds=wait_seconds)
    try:
        yield
    finally:
        os.close(descriptor)
