"""The receipts that the simulated Twilio posts back, signed with the token that the message came with.

Called by the simulator's Twilio.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp

from channels.simulator.faults import Receipts
from channels.twilio import signature

_PAUSE_SECONDS = 0.05
_AT_ONCE = 50
_STATUSES: dict[Receipts, tuple[str, ...]] = {
    Receipts.USUAL: ("sent", "delivered"),
    Receipts.LATE: ("sent", "delivered"),
    Receipts.DOUBLED: ("sent", "sent", "delivered", "delivered"),
    Receipts.REVERSED: ("delivered", "sent"),
    Receipts.UNDELIVERED: ("sent", "undelivered"),
}
#: Twilio's code for a handset that cannot be reached.
_UNREACHABLE = "30003"


@dataclass(frozen=True, slots=True)
class Told:
    """What a receipt tells about, and where it goes."""

    url: str
    account: str
    token: str
    sid: str
    to: str
    sender: str


class Postman:
    """Posts each message's receipts in their order, many messages at once, and repeats none by itself."""

    def __init__(self, late_seconds: float) -> None:
        self.posted: Counter[str] = Counter()
        self._late_seconds = late_seconds
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._rounds: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=10), cookie_jar=aiohttp.DummyCookieJar()
        )

    def tell(self, told: Told, receipts: Receipts) -> None:
        """Begin the round of one message."""
        task = asyncio.create_task(self._round(told, receipts))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    async def close(self) -> None:
        """Drop what is not yet posted."""
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        await self._session.close()

    async def _round(self, told: Told, receipts: Receipts) -> None:
        for status in _STATUSES[receipts]:
            late = receipts is Receipts.LATE and status == "delivered"
            await asyncio.sleep(self._late_seconds if late else _PAUSE_SECONDS)
            await self._post(told, status)

    async def _post(self, told: Told, status: str) -> None:
        form = [
            ("AccountSid", told.account),
            ("ApiVersion", "2010-04-01"),
            ("From", told.sender),
            ("MessageSid", told.sid),
            ("MessageStatus", status),
            ("SmsSid", told.sid),
            ("SmsStatus", status),
            ("To", told.to),
        ]
        if status == "undelivered":
            form.append(("ErrorCode", _UNREACHABLE))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Twilio-Signature": signature(told.token, told.url, form).decode(),
        }
        try:
            async with (
                self._gate,
                self._session.post(told.url, data=urlencode(form), headers=headers) as answer,
            ):
                self.posted["posted" if answer.ok else "refused"] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.posted["lost"] += 1
