"""The mail server that the simulator plays.

Served by ``channels.simulator.server``. It knows a recipient at RCPT and the message only after DATA, so what
depends on the attempt is answered after the final dot.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
import struct
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from channels.simulator.desk import Call, Desk
from channels.simulator.faults import Act, fault_of

logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of its own deprecation at every login

_RESET = struct.pack("ii", 1, 0)
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([0-9a-fA-F-]{36})@", re.IGNORECASE | re.MULTILINE)
_AT_RCPT = {
    Act.REFUSE_RECIPIENT: "550 5.1.1 The mailbox does not exist",
    Act.REFUSE_LOGIN: "535 5.7.8 Authentication credentials invalid",
}
_AFTER_DATA = {
    Act.THROTTLE: "451 4.7.1 Greylisted, try again in 1 second",
    Act.SERVER_ERROR: "451 4.3.0 Local error in processing",
    Act.REFUSE_CONTENT: "554 5.6.0 Content refused",
    Act.RUBBISH: "Moin!",
}


class Mailroom:
    """The handler that aiosmtpd calls at each verb."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def handle_RCPT(  # noqa: N802 - aiosmtpd finds its hooks by name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse what depends on the recipient alone."""
        refusal = _AT_RCPT.get(fault_of(address).act)
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep and answer, or fail as asked."""
        content = envelope.original_content or b""
        found = _MESSAGE_ID.search(content)
        account = session.auth_data.login.decode() if session.auth_data else str(envelope.mail_from)
        call = Call("smtp", account, envelope.rcpt_tos[0], found[1].decode() if found else "", content)
        fault = self._desk.fault_for(call)
        queue_id = secrets.token_hex(5).upper()
        if fault.kept:
            await self._desk.keep(call, queue_id)
        if fault.act is Act.HANG:
            await self._desk.hang()
        if fault.act in (Act.HANG, Act.RESET):
            _cut(server)
        return _AFTER_DATA.get(fault.act, f"250 2.0.0 Ok: queued as {queue_id}")


def session_protocol(desk: Desk) -> SMTP:
    """The protocol of one connection. Any login is taken except the password ``wrong``."""
    return SMTP(
        Mailroom(desk),
        hostname="simulator",
        ident="Chaski simulator",
        enable_SMTPUTF8=True,
        auth_require_tls=False,
        authenticator=_authenticate,
    )


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any) -> AuthResult:
    success = getattr(login, "password", b"") != b"wrong"
    # handled=False makes aiosmtpd send the 535 itself; with True the client would wait for ever
    return AuthResult(success=success, handled=False, auth_data=login)


def _cut(server: SMTP) -> None:
    if server.transport is not None:
        server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        cast(asyncio.WriteTransport, server.transport).abort()  # a cast, for uvloop's transports derive from nothing
