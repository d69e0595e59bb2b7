"""The points at which a test may kill this process. Called by the stages; inert outside the test environment."""

from __future__ import annotations

import os
import signal

from django.conf import settings


def crash_point(name: str, text: str = "") -> None:
    """Die by SIGKILL if CHASKI_CRASH_AT names this point (``name`` or ``name:word`` with the word in ``text``)."""
    if settings.CHASKI_ENV != "test":
        return
    wanted, _, word = os.environ.get("CHASKI_CRASH_AT", "").partition(":")
    if wanted == name and word in text:
        os.kill(os.getpid(), signal.SIGKILL)
