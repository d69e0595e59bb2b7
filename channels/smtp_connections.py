"""Kept-open sessions with one mail server: bounded in number, in mails and in idle time.

Called by the SMTP provider, on the asyncio loop. A session is taken together with its first command, MAIL FROM, so a
kept one that the server has dropped is found out before anything of a mail has left, and a new one takes its place.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from aiohttp.abc import ResolveResult
from aiosmtplib import SMTP, SMTPNotSupported, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from channels.dns import Resolver

DNS_SECONDS = 10.0
#: For each of the host's addresses.
CONNECT_SECONDS = 5.0
#: For one reply before the final dot. Long for a command, short beside the attempt's whole time.
REPLY_SECONDS = 30.0
IDLE_SECONDS = 10.0
MAILS_PER_SESSION = 100


@dataclass(frozen=True, slots=True)
class Server:
    """Where and how to log in. ``tls`` is one of ``none``, ``starttls`` and ``tls``; certificates are always verified.

    ``ca_file`` names the authorities to trust instead of the system's; ``helo`` is what we call ourselves.
    """

    host: str
    port: int
    tls: str
    helo: str
    username: str = ""
    password: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL FROM says: the sender's address, the mail's size in bytes, whether an address needs SMTPUTF8."""

    sender: str
    size: int
    utf8: bool


@dataclass(slots=True)
class _Session:
    client: SMTP
    mails: int = 0
    needs_reset: bool = False
    expiry: asyncio.TimerHandle | None = None


class Connections:
    """At most ``limit`` sessions with ``server``. Belongs to the loop of its first use."""

    def __init__(self, server: Server, limit: int) -> None:
        self._server = server
        self._gate = asyncio.Semaphore(limit)
        self._idle: list[_Session] = []
        self._resolver = Resolver()
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    @asynccontextmanager
    async def mail_from(self, envelope: Envelope, patience: float) -> AsyncIterator[SMTP]:
        """A session in which MAIL FROM was accepted; waits up to ``patience`` seconds while ``limit`` are in use.

        Afterwards the session is kept, unless the block failed in a way that leaves the dialogue unclear. Raises what
        aiosmtplib raises (``SMTPNotSupported`` where the server does not know SMTPUTF8), and ``OSError`` for names,
        connections and TLS.
        """
        async with asyncio.timeout(patience):
            await self._gate.acquire()
        try:
            session = await self._begin(envelope)
            try:
                yield session.client
            except SMTPResponseException as error:
                session.needs_reset = True
                self._give_back(session, clear=error.code > 0)
                raise
            except BaseException:
                _abort(session.client)
                raise
            self._give_back(session, clear=True)
        finally:
            self._gate.release()

    async def close(self) -> None:
        """End the idle sessions; those in use end when they are given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for session in idle:
            _quit(session)
        await self._resolver.close()

    async def _begin(self, envelope: Envelope) -> _Session:
        while self._idle:
            session = self._idle.pop()
            if session.expiry is not None:
                session.expiry.cancel()
            if await _takes(session, envelope):
                return session
        session = _Session(await self._open())
        try:
            await _mail(session.client, envelope)
        except BaseException:
            _abort(session.client)
            raise
        return session

    def _give_back(self, session: _Session, *, clear: bool) -> None:
        session.mails += 1
        if not (clear and session.client.is_connected):
            _abort(session.client)
        elif self._closed or session.mails >= MAILS_PER_SESSION:
            _quit(session)
        else:
            session.expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, session)
            self._idle.append(session)

    def _expire(self, session: _Session) -> None:
        self._idle.remove(session)
        _quit(session)

    async def _open(self) -> SMTP:
        server = self._server
        if self._tls is None and server.tls != "none":
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=server.ca_file or None)
        client = SMTP(
            hostname=server.host,
            sock=await self._connect(),
            local_hostname=server.helo,
            username=server.username or None,
            password=server.password or None,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            tls_context=self._tls,
            timeout=REPLY_SECONDS,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except BaseException:
            _abort(client)
            raise
        return client

    async def _connect(self) -> socket.socket:
        """A connection to the first of the host's addresses that answers."""
        async with asyncio.timeout(DNS_SECONDS):
            found = await self._resolver.resolve(self._server.host, self._server.port, socket.AF_UNSPEC)
        failure: OSError = ConnectionError("the host has no address")
        for address in found:
            try:
                return await _linked(address)
            except OSError as error:
                failure = error
        raise failure


async def _linked(address: ResolveResult) -> socket.socket:
    link = socket.socket(socket.AddressFamily(address["family"]), socket.SOCK_STREAM)
    try:
        link.settimeout(0)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(link, (address["host"], address["port"]))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        link.close()
        raise
    return link


async def _mail(client: SMTP, envelope: Envelope) -> None:
    options = [f"SIZE={envelope.size}"] if client.supports_extension("size") else []
    if envelope.utf8:
        if not client.supports_extension("smtputf8"):
            raise SMTPNotSupported("the server does not know SMTPUTF8")
        options.append("SMTPUTF8")
    await client.mail(envelope.sender, options=options, encoding="utf-8" if envelope.utf8 else "ascii")


async def _takes(session: _Session, envelope: Envelope) -> bool:
    """MAIL FROM in a kept session. Unless it says yes, a new one has the last word: servers limit what one session may
    send in many ways."""
    try:
        if session.needs_reset:
            await session.client.rset()
            session.needs_reset = False
        await _mail(session.client, envelope)
    except (SMTPServerDisconnected, SMTPTimeoutError, SMTPResponseException):
        _abort(session.client)
        return False
    except BaseException:
        _abort(session.client)
        raise
    return True


def _abort(client: SMTP) -> None:
    """Drop the connection with whatever is still to be written."""
    if client.transport is not None:
        cast(asyncio.WriteTransport, client.transport).abort()  # a cast, for uvloop's transports derive from nothing
    client.close()


def _quit(session: _Session) -> None:
    """Say goodbye without waiting for the answer."""
    client = session.client
    if client.protocol is not None and client.is_connected:
        client.protocol.write(b"QUIT\r\n")
    client.close()
