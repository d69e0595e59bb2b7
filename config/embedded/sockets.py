"""A short private folder for a server's socket, whose address must fit about 100 bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from config.embedded.errors import ServerStartError

LONGEST_FOLDER = 80  # of 104 (macOS) or 108 (Linux) bytes; the rest is the socket's own name


def socket_folder(data: Path) -> Path:
    """The folder for the sockets of the server on ``data``: the same one each time, mode 0700, ours."""
    name = "chaski-" + hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:8]
    for base in _bases():
        folder = base / name
        if len(os.fsencode(folder)) <= LONGEST_FOLDER:
            make_private(folder)
            return folder
    raise ServerStartError("No folder with a short path can be written to: set TMPDIR to one, such as /tmp.")


def _bases() -> Iterator[Path]:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if runtime.is_dir() and runtime.stat().st_uid == os.geteuid():  # `sudo -E` leaves that of another user
        yield runtime
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - only a private folder within it is used
        if os.access(base, os.W_OK | os.X_OK):
            yield base


def make_private(folder: Path) -> None:
    """Make the folder or take it as it is, and refuse one that somebody else could have put there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ServerStartError(f"{folder} belongs to somebody else. Remove it, or set TMPDIR to a folder of your own.")
    folder.chmod(0o700)
