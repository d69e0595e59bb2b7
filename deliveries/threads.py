"""Threads of a process that nobody would start again: what goes wrong in one round must not end them.

Used by the rounds of the heartbeat, the watchdog and the parking; the recorder and the reconciler keep results, and see to
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


@contextmanager
def going_on(work: str) -> Iterator[None]:
    """Log what goes wrong in the block, whatever it is, and go on behind it."""
    try:
        yield
    except Exception:
        log.exception("round_failed", work=work)
