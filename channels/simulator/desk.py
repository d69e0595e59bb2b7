"""What the simulator does with a message, whatever wire it came by: choose the fault, keep the ledger.

Called by the simulator's servers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from channels.simulator.faults import BY_SEED, OK, Fault, fault_of
from channels.simulator.ledger import Entry, Ledger

_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send. ``message_id`` is Chaski's where the wire carries it, else empty."""

    provider: str
    account: str
    recipient: str
    message_id: str
    body: bytes

    @property
    def body_sha256(self) -> str:
        """Which content it was, without keeping it."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def key(self) -> str:
        """The same for every attempt of one message."""
        return self.message_id or f"{self.recipient} {self.body_sha256}"


class Desk:
    """Decides by recipient, then by seed: the same seed, message and attempt always meet the same fault."""

    def __init__(
        self, ledger: Ledger, *, seed: str | None, fault_rate: float, hang_seconds: float, late_seconds: float
    ) -> None:
        self.ledger = ledger
        self.late_seconds = late_seconds
        #: How often each fault was met, by its word.
        self.faults: Counter[str] = Counter()
        self._seed = seed or ""
        self._fault_rate = fault_rate
        self._hang_seconds = hang_seconds
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._closing = asyncio.Event()

    def fault_for(self, call: Call) -> Fault:
        """What this attempt meets."""
        fault = fault_of(call.recipient)
        if fault is OK and self._fault_rate:
            fault = self._drawn(call, self._count(call))
        elif fault.once and self._count(call) > 1:
            fault = OK
        self.faults[fault.word] += 1
        return fault

    async def keep(self, call: Call, provider_message_id: str) -> None:
        """Put the acceptance on disk."""
        await self.ledger.append(
            Entry(
                time=datetime.now(UTC).isoformat(),
                provider=call.provider,
                account=call.account,
                recipient=call.recipient,
                message_id=call.message_id or None,
                provider_message_id=provider_message_id,
                body_sha256=call.body_sha256,
            )
        )

    async def hang(self) -> None:
        """Be silent for the hang's length, or until the simulator ends."""
        try:
            async with asyncio.timeout(self._hang_seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Let go of everything that hangs."""
        self._closing.set()

    def summary(self) -> dict[str, object]:
        """Counts since the start."""
        accepted = self.ledger.accepted
        return {"accepted": accepted.total(), "providers": dict(accepted), "faults": dict(self.faults)}

    def _count(self, call: Call) -> int:
        """Which attempt this is; the oldest messages are forgotten."""
        attempt = self._attempts.pop(call.key, 0) + 1
        self._attempts[call.key] = attempt
        if len(self._attempts) > _REMEMBERED:
            self._attempts.popitem(last=False)
        return attempt

    def _drawn(self, call: Call, attempt: int) -> Fault:
        digest = hashlib.sha256(f"{self._seed}:{call.key}:{attempt}".encode()).digest()
        if int.from_bytes(digest[:8]) / 2**64 >= self._fault_rate:
            return OK
        return BY_SEED[int.from_bytes(digest[8:16]) % len(BY_SEED)]
