"""The loops that the client's tests run on: asyncio's own, and uvloop's, on which workers run."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

#: For a module's ``pytestmark``.
BOTH_LOOPS = [
    pytest.mark.usefixtures("runner"),
    pytest.mark.parametrize(
        "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"], indirect=True
    ),
]
