"""The spill: files in which a worker process keeps results while the database cannot take them.

One file per process and outage, appended and fsynced before anything else happens to a result, removed when the database
has everything. Its owner holds an flock on it as long as it lives, so that a file whose lock can be had is an orphan: the
next process on this machine settles it (``deliveries.delivery.replay``). Written by the recorder's thread only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from deliveries.delivery.crashes import crash_point
from deliveries.delivery.lines import header, to_line
from deliveries.delivery.settle import Settlement

log = structlog.get_logger(__name__)
RESULTS = ".results"
#: What no database will ever take, one JSON object per line with its reason; and what a crash cut off while it was written.
REJECTED = ".rejected"
TORN = ".torn"


class Spill:
    """The file of this process. Errors of the disk are logged once per outage and leave the results to memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = f"{socket.gethostname()}-{os.getpid()}"
        self._file: Path | None = None
        self._descriptor = -1
        self._kept: set[tuple[UUID, int]] = set()
        self._unsaved: dict[tuple[UUID, int], Settlement] = {}
        self._complained = False

    def keep(self, settlements: Iterable[Settlement]) -> None:
        """Have ``settlements`` on the disk when this returns; those that are there already are not written again."""
        self._unsaved |= {key: row for row in settlements if (key := (row.id, row.number)) not in self._kept}
        if not self._unsaved:
            return
        try:
            self._append(b"".join(to_line(row) for row in self._unsaved.values()))
        except OSError as error:
            self._complain(error)
            return
        self._kept |= self._unsaved.keys()
        self._unsaved.clear()
        crash_point("after_spill")

    def clear(self) -> None:
        """The database has everything that was kept."""
        self._kept.clear()
        self._unsaved.clear()
        self._complained = False
        if self._file is None:
            return
        crash_point("before_unspill")
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            # It will be settled once more, which changes nothing.
            log.warning("spill_not_removed", file=self._file.name, error=type(error).__name__)
        os.close(self._descriptor)
        self._file, self._descriptor = None, -1

    def reject(self, settlement: Settlement, reason: str) -> None:
        """Set a result aside that the database will never take."""
        try:
            make(self._folder)
            set_aside(self._folder / f"{self._owner}{REJECTED}", [(to_line(settlement), reason)])
        except OSError as error:
            self._complain(error)

    def _append(self, lines: bytes) -> None:
        if self._file is None:
            self._open()
        end = os.fstat(self._descriptor).st_size
        try:
            _write(self._descriptor, lines)
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, end)  # half a line would spoil the next one
            raise

    def _open(self) -> None:
        make(self._folder)
        while True:
            file = self._folder / f"{self._owner}-{uuid4().hex[:12]}{RESULTS}"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            try:
                if not locked(descriptor, file):
                    os.close(descriptor)
                    continue  # somebody took the empty file for an orphan and removes it
                _write(descriptor, header(self._owner))
                fsync_folder(self._folder)
            except OSError:
                file.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            self._file, self._descriptor = file, descriptor
            return

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.error("spill_not_written", folder=str(self._folder), error=type(error).__name__, errno=error.errno)


def usable(folder: Path) -> bool:
    """Whether this process could keep results in ``folder``, which it would make."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def orphans(folder: Path) -> list[Path]:
    """The files whose owner is gone."""
    found = []
    for file in sorted(folder.glob(f"*{RESULTS}")):
        with taken(file) as ours:
            if ours:
                found.append(file)
    return found


def make(folder: Path) -> None:
    """The folder, readable by its owner alone. Raises ``OSError``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def locked(descriptor: int, file: Path) -> bool:
    """Whether the file is ours alone now, and still there under its name. The lock ends with the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def taken(file: Path) -> Iterator[bool]:
    """Whether ``file`` is an orphan; if so, it is ours in this block."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield locked(descriptor, file)
    finally:
        os.close(descriptor)


def set_aside(file: Path, lines: Sequence[tuple[bytes, str]]) -> None:
    """Add lines and their reasons to a file of those that the database never takes, safely. Raises ``OSError``."""
    texts = [
        json.dumps({"reason": reason, "line": line.decode(errors="replace").rstrip("\n")}) for line, reason in lines
    ]
    append_safely(file, "".join(f"{text}\n" for text in texts).encode())


def append_safely(file: Path, data: bytes) -> None:
    """``data`` at the end of ``file``, on the disk when this returns. Raises ``OSError``."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_folder(file.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power failure. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
