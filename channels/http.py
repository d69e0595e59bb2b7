"""The one way of providers to HTTP: a keep-alive client that always knows whether a request had left.

Called by providers, on the asyncio loop of a worker process; made and closed by the delivery engine, one per
process. It follows no redirect, keeps no cookie, reads no proxy from the environment, never repeats a
request, and reads at most ``BODY_LIMIT`` bytes of an answer.
"""

from __future__ import annotations

import asyncio
import errno
import re
import select
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from channels.base import InDoubt, InvalidRecipient, Misconfigured, NotSent, RecipientRefused, SendError
from channels.dns import PublicResolver, Resolver
from channels.urls import AddressRefused, refuse_private, webhook_url
from channels.written import tell_written

BODY_LIMIT = 64 * 1024
CONNECT_SECONDS = 5.0
#: Shorter than the 5 s after which Node, Apache and uvicorn drop an idle connection, so that we drop it
#: first.
IDLE_SECONDS = 4.0
DNS_CACHE_SECONDS = 10
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
#: A peer that has closed its side; where the system has no such flag, only errors and full hang-ups are seen.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Reach(StrEnum):
    """Where a request may go."""

    VENDOR = "vendor"  # wherever an operator pointed the account
    PUBLIC = "public"  # to a URL that a service chose: only public addresses, see channels.urls


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer. Header names are looked up in any case; ``body`` is cut to ``BODY_LIMIT`` bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Progress:
    written: bool = False


_progress: ContextVar[_Progress] = ContextVar("progress")


class HttpClient:
    """Requests over pools of kept-open connections, one pool per ``Reach``.

    Belongs to the loop of its first request. Any number of requests may run at once: the provider's window
    bounds them.
    """

    def __init__(self) -> None:
        self._sessions: dict[Reach, aiohttp.ClientSession] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout: float,  # noqa: ASYNC109 - the caller's deadline decides between NotSent and InDoubt
        reach: Reach = Reach.VENDOR,
    ) -> HttpResponse:
        """One request and its answer, whatever the status, within ``timeout`` seconds.

        Raises ``NotSent`` where nothing was written (DNS, refused, TLS, no connection in time), ``InDoubt``
        where the request was written and no whole answer came, ``RecipientRefused`` where ``Reach.PUBLIC``
        forbids the address, ``Misconfigured`` where URL or headers are none. No text of these holds the URL.
        """
        if reach is Reach.PUBLIC:
            _refuse_url(url)
        if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in headers.items()):
            raise Misconfigured("invalid_header", "a header to send holds a control character; look at the account")
        progress = _Progress()
        _progress.set(progress)
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(self._session(reach), method, url, headers, body)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _failure(error, progress) from None

    async def close(self) -> None:
        """Close every connection; requests in flight fail."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _session(self, reach: Reach) -> aiohttp.ClientSession:
        session = self._sessions.get(reach)
        if session is None:
            session = self._sessions[reach] = _open_session(reach)
        return session

    @staticmethod
    async def _exchange(
        session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        async with session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
            return HttpResponse(response.status, response.headers, await _capped(response))


async def _capped(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= BODY_LIMIT:
            response.close()  # the rest is not wanted, so the connection cannot be used again
            break
    return bytes(body[:BODY_LIMIT])


def _open_session(reach: Reach) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=_Pool(reach),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        headers={"User-Agent": "Chaski"},
        skip_auto_headers=("Accept-Encoding",),  # nothing compressed is asked for, so nothing can be inflated
        auto_decompress=False,
        trust_env=False,
    )
    session._retry_connection = False  # it would send a GET, PUT or DELETE again over a new connection
    return session


class _Pool(aiohttp.TCPConnector):
    """Kept-open connections. Once ``connect`` has returned, the request counts as written."""

    def __init__(self, reach: Reach) -> None:
        self._own_resolver: AbstractResolver = PublicResolver() if reach is Reach.PUBLIC else Resolver()
        super().__init__(
            limit=0,
            keepalive_timeout=IDLE_SECONDS,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            resolver=self._own_resolver,
            socket_factory=_public_socket if reach is Reach.PUBLIC else None,
        )
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """A connection whose peer has not hung up.

        A kept-open connection that the server has closed a moment ago looks open until the loop reads its
        end. Writing to it would fail in a way that cannot be told from a server that read the request and
        died, so the kernel is asked first. What remains is a close that crosses the request on the wire.
        """
        while _hung_up(connection := await super().connect(*args, **kwargs)):
            kept_open = connection.protocol in self._used
            connection.close()
            if not kept_open:
                raise ConnectionResetError(errno.ECONNRESET, "closed by the peer as soon as it was open")
        self._used.add(_protocol(connection))
        _progress.get().written = True
        tell_written()
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close the connections and the threads that look names up."""
        await super().close(abort_ssl=abort_ssl)
        await self._own_resolver.close()


def _protocol(connection: Connection) -> ResponseHandler:
    if connection.protocol is None:
        raise ConnectionResetError(errno.ECONNRESET, "closed before it was used")
    return connection.protocol


def _hung_up(connection: Connection) -> bool:
    transport = connection.transport
    if transport is None:
        return True
    poller = select.poll()
    poller.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
    return bool(poller.poll(0))


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """The socket for an address, checked once more: a URL that holds an address never asks the resolver."""
    family, kind, proto, _, address = info
    refuse_private([str(address[0])])
    return socket.socket(family, kind, proto)


def _refuse_url(url: str) -> None:
    try:
        webhook_url(url)
    except InvalidRecipient as error:
        raise RecipientRefused("url_refused", f"the URL {error}") from None


def _failure(error: Exception, progress: _Progress) -> SendError:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, AddressRefused):
        return RecipientRefused("address_refused", str(cause))
    if isinstance(error, aiohttp.InvalidURL):
        return Misconfigured("invalid_url", "the URL to request cannot be read; look at the account's base_url")
    if not progress.written or _wrote_nothing(error):
        return _not_sent(error, cause)
    if isinstance(error, TimeoutError):
        return InDoubt("timeout", "the request was sent and no whole answer came in time")
    if isinstance(error, aiohttp.ClientResponseError):
        return InDoubt("unreadable_answer", "the request was sent and the answer was not HTTP")
    return InDoubt("connection_lost", f"the request was sent and the connection ended first ({_name(cause)})")


def _wrote_nothing(error: BaseException | None) -> bool:
    """aiohttp found the connection closing before its first write, which is head and body at once."""
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectionResetError) and "Cannot write" in str(error):
            return True
        error = error.__cause__
    return False


def _not_sent(error: Exception, cause: Exception) -> NotSent:
    if isinstance(error, TimeoutError):
        return NotSent("connect_timeout", "no connection in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NotSent("dns", f"the host name could not be resolved ({_name(cause)})")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return NotSent("tls", f"no TLS connection ({_name(cause)}); look at the certificate and the host name")
    if isinstance(cause, ConnectionRefusedError):
        return NotSent("refused", "the host refuses connections on this port")
    return NotSent("connect_failed", f"no connection ({_name(cause)})")


def _name(error: Exception) -> str:
    """What went wrong without the host or the URL, which may hold a secret."""
    strerror = getattr(error, "strerror", None)
    return str(strerror) if strerror and "://" not in str(strerror) else type(error).__name__
