"""The provider that sends nothing anywhere: for test keys, for trying out, for tests of everything around it.

Used by the delivery engine like any other. Recipients from the simulator's table get the simulator's faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from channels.attachments import Carriage, Kind, Takes
from channels.base import (
    Accepted,
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.media import MEDIA
from channels.simulator.faults import Act, Fault, fault_of

_LATENCY_LIMIT_MS = 10_000


class Sandbox(Provider):
    """Accepts every message on every channel after ``latency_ms``."""

    name = "sandbox"
    channels = tuple(MEDIA)
    reconciles = True
    takes = Takes(Carriage.FETCHED, 20, dict.fromkeys(Kind, 25_000_000))
    options = (Option("latency_ms", "how long each send takes, 0 to 10000 ms", default="0"),)

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; ``latency_ms`` must be a whole number."""
        checked = super().check(settings)
        latency = checked["latency_ms"]
        if not (latency.isascii() and latency.isdigit() and int(latency) <= _LATENCY_LIMIT_MS):
            raise InvalidOption("latency_ms", f"must be a whole number from 0 to {_LATENCY_LIMIT_MS}")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Only what is empty: what another provider would take passes here too."""
        given = outbound.text or outbound.html or outbound.metadata or outbound.options or outbound.attachments
        return {} if given else {"text": "must not be empty"}

    async def send(self, outbound: Outbound) -> Accepted:
        """Accept, or fail as the recipient asks. A hang is told at once as what it becomes: in doubt."""
        await asyncio.sleep(int(self.settings.get("latency_ms") or 0) / 1000)
        fault = fault_of(outbound.to)
        failure = None if fault.once and outbound.attempt > 1 else _failure(fault)
        if failure is not None:
            raise failure
        return _accepted(outbound)

    async def find(self, outbound: Outbound, since: datetime) -> Accepted | None:
        """What the simulator's table says of the recipient: whether it keeps what it does not answer."""
        return _accepted(outbound) if fault_of(outbound.to).kept else None


def _accepted(outbound: Outbound) -> Accepted:
    return Accepted(f"sandbox:{outbound.message_id}", "the sandbox sends nothing")


def _failure(fault: Fault) -> SendError | None:
    detail = f"the sandbox was asked for it by the recipient ({fault.word})"
    match fault.act:
        case Act.ACCEPT:
            return None
        case Act.THROTTLE:
            return Throttled("sandbox_throttle", detail, retry_after=1.0)
        case Act.SERVER_ERROR:
            return Transient("sandbox_server_error", detail)
        case Act.REFUSE_RECIPIENT:
            return RecipientRefused("sandbox_reject", detail)
        case Act.REFUSE_CONTENT:
            return ContentRefused("sandbox_reject_content", detail)
        case Act.REFUSE_LOGIN:
            return Misconfigured("sandbox_auth", detail)
        case Act.HANG | Act.RESET | Act.RUBBISH:
            return InDoubt(f"sandbox_{fault.word}", detail)
