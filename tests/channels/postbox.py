"""Accounts of the SMTP provider, mails to send through them, and a mail server that keeps what it gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiosmtpd import smtp as aiosmtpd
from aiosmtpd.smtp import AuthResult, Envelope

from channels.base import (
    Outbound,
    SendError,
)
from channels.email_smtp import Smtp
from channels.http import HttpClient
from tests.channels.contract import MESSAGE_ID
from tests.channels.smtp_wire import Act, Mailserver
from tests.channels.wire import Server

FROM = "The shop <hello@shop.example>"
#: Seconds for one mail: far more than a busy machine needs, and shortened by tests that wait for the end of it.
PATIENCE = 5.0
SHORT = 0.8
PASSWORD = "correct horse"
SETTINGS = {"host": "127.0.0.1", "port": "1", "security": "none", "from": FROM}
ORDINARY: dict[str, Any] = {
    "message_id": MESSAGE_ID,
    "channel": "email",
    "to": "customer@example.com",
    "subject": "Order 7",
    "text": "Your order is on its way.",
}


def account(server: Server, **changes: str) -> Smtp:
    """The provider with its server at ``server``."""
    settings = {"host": "127.0.0.1", "port": str(server.port), "security": "none", "from": FROM, **changes}
    made = Smtp(Smtp.check(settings), HttpClient())
    made.call_seconds = PATIENCE
    return made


def mail(**changes: Any) -> Outbound:
    """An ordinary mail."""
    return Outbound(**{**ORDINARY, **changes})


async def failed(server: Server, replies: Mapping[str, Any], **changes: Any) -> SendError:
    """What one mail raises where the server answers with ``replies``."""
    server.script = Mailserver(replies)
    provider = account(server)
    provider.call_seconds = SHORT if Act.HANG in replies.values() else PATIENCE
    with pytest.raises(SendError) as caught:
        await provider.send(mail(**changes))
    await provider.close()
    return caught.value


class Inbox:
    """What aiosmtpd received, for whom, after which login."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Keep it."""
        self.envelopes.append(envelope)
        return "250 2.0.0 Ok: queued as 1"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """One password is right."""
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@asynccontextmanager
async def mailhost(inbox: Inbox, **options: Any) -> AsyncIterator[int]:
    """aiosmtpd on a free port, with ``ssl`` from the first byte or ``tls_context`` for STARTTLS."""
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    tls = options.pop("ssl", None)
    loop = asyncio.get_running_loop()

    def session() -> aiosmtpd.SMTP:
        return aiosmtpd.SMTP(inbox, hostname="mail.example", **options)

    listening = await loop.create_server(session, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def over_tls(port: int, security: str, ca_file: str = "", **changes: str) -> Smtp:
    """An account at ``localhost``."""
    settings = {"host": "localhost", "port": str(port), "security": security, "from": FROM, "ca_file": ca_file}
    made = Smtp(Smtp.check({**settings, **changes}), HttpClient())
    made.call_seconds = PATIENCE
    return made
