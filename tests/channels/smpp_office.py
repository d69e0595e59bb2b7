"""Everything around the SMPP gateway that its tests play: the account, the worker, Chaski's receipts endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from channels.base import Accepted, InboundRequest, Outbound, Receipt, Reply, SendError
from channels.http import HttpClient
from channels.smpp import Smpp
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.server import Running
from tests.channels.contract import MESSAGE_ID
from tests.channels.smsc import Smsc
from tests.channels.wire import Line, Server, answer

SECRET = "shared by gateway and Chaski"
#: As in production, but for what a test waits for.
SHORT = Patience(
    answer=0.5, again=0.05, again_least=0.1, again_most=0.2, refused=0.2, refused_most=0.4, steady=0.0, ending=0.5
)
Start = Callable[..., Awaitable["Office"]]


@dataclass
class Chaski:
    """The receipts endpoint: believes what is signed, and keeps it, while it is not ``away``."""

    server: Server
    provider: Smpp
    told: list[Receipt | Reply] = field(default_factory=list)
    away: bool = False

    async def __call__(self, line: Line) -> None:
        while request := await line.request():
            head, _, body = request.partition(b"\r\n\r\n")
            headers = dict(row.lower().split(": ", 1) for row in head.decode().split("\r\n")[1:])
            inbound = InboundRequest("POST", self.url, headers, {}, body)
            self.provider.verify(inbound)
            if not self.away:
                self.told += self.provider.parse(inbound)
            await line.send(answer(503 if self.away else 200))

    @property
    def url(self) -> str:
        return f"{self.server.url}/receipts/1"


@dataclass
class Office:
    """A gateway for one account, whose SMSC and Chaski are the test's."""

    smsc: Smsc
    chaski: Chaski
    http: HttpClient
    settings: dict[str, str]
    accounts: list[GatewayAccount]
    gateway: Running | None = None

    @classmethod
    def made(cls, smsc: Smsc, server: Server, http: HttpClient) -> Office:
        """For one account, without a gateway."""
        given = {"host": "127.0.0.1", "port": str(smsc.port), "system_id": "shop", "password": "s3cret"}
        settings = Smpp.check({**given, "from": "Shop", "gateway_secret": SECRET})
        chaski = Chaski(server, Smpp(settings, http))
        server.script = chaski
        return cls(smsc, chaski, http, settings, [GatewayAccount(1, settings, chaski.url)])

    def read(self) -> list[GatewayAccount]:
        """The accounts, as the gateway reads them."""
        return list(self.accounts)

    def changed(self, **changes: str) -> dict[str, str]:
        """The settings with ``changes``, checked."""
        return Smpp.check({**self.settings, **changes})

    async def send(self, seconds: float = 5.0, account: dict[str, str] | None = None, **fields: Any) -> Accepted:
        """Send a message as a worker does."""
        assert self.gateway
        settings = {**(account or self.changed()), "base_url": self.gateway.url}
        provider = Smpp(settings, self.http)
        provider.call_seconds = seconds
        given = {"message_id": MESSAGE_ID, "channel": "sms", "to": "+56912345678", "text": "Your order is on its way."}
        return await provider.send(Outbound(**{**given, "receipts_url": self.chaski.url, **fields}))

    async def refused(self, *, seconds: float = 5.0, account: dict[str, str] | None = None, **fields: Any) -> SendError:
        """What sending raises."""
        with pytest.raises(SendError) as caught:
            await self.send(seconds, account, **fields)
        return caught.value


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what comes true elsewhere sets no event of ours
            await asyncio.sleep(0.01)
