"""The points at which a test may kill or freeze this process. Called by the stages; inert outside the test environment.

A test puts a file ``<point>.<anything>`` into the folder CHASKI_CRASH_FOLDER; the first process that reaches the point
takes the file (renames it to ``taken.<pid>.<name>``) and sends the signal to itself. One file, one signal.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from functools import cache
from pathlib import Path

from django.conf import settings


@cache
def _folder() -> Path | None:
    named = os.environ.get("CHASKI_CRASH_FOLDER", "") if settings.CHASKI_ENV == "test" else ""
    return Path(named) if named else None


def crash_point(name: str, text: str = "") -> None:
    """Be killed or stopped here if a file asks for it: ``{"word": ..., "signal": 9}``, the word being part of ``text``."""
    folder = _folder()
    if folder is None:
        return
    for file in sorted(folder.glob(f"{name}.*")):
        _obey(file, text)


def _obey(file: Path, text: str) -> None:
    try:
        order = json.loads(file.read_text())
        if order["word"] not in text:
            return
        file.rename(file.with_name(f"taken.{os.getpid()}.{file.name}"))
    except FileNotFoundError:
        return  # another process was quicker
    # To this thread: one to the process may be taken by another, and this one would go on for a moment.
    signal.pthread_kill(threading.get_ident(), order["signal"])
