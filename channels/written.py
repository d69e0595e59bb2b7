"""When an attempt's request was handed to the network, told by the wire to whoever made the attempt.

``channels.http`` and the SMTP provider tell it; the delivery engine asks. A provider over anything else need not care:
without ``tell_written`` the moment is unknown, and nothing depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Writing:
    """One attempt's request. ``at``: when its last one was written, in ``time.monotonic()`` seconds; None: not, or unknown."""

    at: float | None = None


_writing: ContextVar[Writing | None] = ContextVar("writing", default=None)


def watch_writing() -> Writing:
    """From now on what this task writes is told to the answer. It stays readable when the task is cancelled."""
    writing = Writing()
    _writing.set(writing)
    return writing


@contextmanager
def unwatched() -> Iterator[None]:
    """What is written in the block is no request of an attempt: an upload, which many messages may be waiting for."""
    token = _writing.set(None)
    try:
        yield
    finally:
        _writing.reset(token)


def tell_written() -> None:
    """The request as a whole was handed to the network: from now on the vendor may act on it."""
    writing = _writing.get()
    if writing is not None:
        writing.at = time.monotonic()
