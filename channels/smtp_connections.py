"""Kept-open sessions with one mail server: bounded in number, in mails and in idle time.

Called by the SMTP provider, on the asyncio loop. A session is taken together with its envelope, so a kept one that the
server has dropped is found out before anything of a mail has left, and a new one takes its place.
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
from aiosmtplib import SMTP, SMTPDataError, SMTPRecipientRefused, SMTPResponseException, SMTPServerDisconnected

from channels.dns import Resolver
from channels.smtp_dialogue import REPLY_SECONDS, Dialogue, Envelope

DNS_SECONDS = 10.0
#: For each of the host's addresses.
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
MAILS_PER_SESSION = 100
#: A kept session that ends so before it has taken our sender wants no mail any more, whosever it is.
_OVER = (SMTPServerDisconnected, SMTPResponseException, TimeoutError)
_ABOUT_THE_MAIL = (SMTPRecipientRefused, SMTPDataError)


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


@dataclass(slots=True)
class _Session:
    dialogue: Dialogue
    mails: int = 0
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
    async def begun(self, envelope: Envelope, patience: float) -> AsyncIterator[Dialogue]:
        """A session that waits for the mail to ``envelope``; waits up to ``patience`` seconds while ``limit`` are in use.

        Afterwards the session is kept, unless the block failed in a way that leaves the dialogue unclear. Raises what
        ``Dialogue.begin`` and aiosmtplib raise, and ``OSError`` for names, connections and TLS.
        """
        if self._gate.locked():
            async with asyncio.timeout(patience):
                await self._gate.acquire()
        else:
            await self._gate.acquire()
        try:
            session = await self._begin(envelope)
            try:
                yield session.dialogue
            except BaseException as error:
                self._refused(session, error)
                raise
            self._give_back(session)
        finally:
            self._gate.release()

    async def close(self) -> None:
        """End the idle sessions; those in use end when they are given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for session in idle:
            session.dialogue.leave()
        await self._resolver.close()

    async def _begin(self, envelope: Envelope) -> _Session:
        while self._idle:
            session = self._idle.pop()
            if session.expiry is not None:
                session.expiry.cancel()
            if await self._takes(session, envelope):
                return session
        session = _Session(await self._open())
        try:
            await session.dialogue.begin(envelope)
        except BaseException as error:
            self._refused(session, error)
            raise
        return session

    async def _takes(self, session: _Session, envelope: Envelope) -> bool:
        """The envelope in a kept session. Unless it says yes to our sender, a new one has the last word: servers limit
        what one session may send in many ways."""
        try:
            await session.dialogue.begin(envelope)
        except BaseException as error:
            if isinstance(error, _OVER) and not session.dialogue.took_sender:
                session.dialogue.drop()
                return False
            self._refused(session, error)
            raise
        return True

    def _refused(self, session: _Session, error: BaseException) -> None:
        """Only an answer about this mail leaves a dialogue clear."""
        if isinstance(error, _ABOUT_THE_MAIL):
            self._give_back(session)
        else:
            session.dialogue.drop()

    def _give_back(self, session: _Session) -> None:
        session.mails += 1
        if not session.dialogue.usable:
            session.dialogue.drop()
        elif self._closed or session.mails >= MAILS_PER_SESSION:
            session.dialogue.leave()
        else:
            session.expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, session)
            self._idle.append(session)

    def _expire(self, session: _Session) -> None:
        self._idle.remove(session)
        session.dialogue.leave()

    async def _open(self) -> Dialogue:
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
        return Dialogue(cast(asyncio.Transport, client.transport), frozenset(client.esmtp_extensions))

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


def _abort(client: SMTP) -> None:
    """Drop the connection with whatever is still to be written."""
    if client.transport is not None:
        cast(asyncio.WriteTransport, client.transport).abort()  # a cast, for uvloop's transports derive from nothing
    client.close()
