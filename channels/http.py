"""The one way of providers to HTTP: a keep-alive client that always knows whether a request had left.

Called by providers, on the asyncio loop of a worker process; made and closed by the delivery engine, one per
process. It follows no redirect, keeps no cookie, reads no proxy from the environment, never repeats a
request, asks for nothing compressed, and reads at most ``BODY_LIMIT`` bytes of an answer.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from yarl import URL

from channels.base import InDoubt, InvalidRecipient, Misconfigured, NotSent, RecipientRefused, SendError
from channels.dns import PublicResolver, Resolver
from channels.http_pool import NoAddress, Opener, Origin, Pool
from channels.http_wire import BODY_LIMIT, HttpResponse, NotHttp
from channels.urls import AddressRefused, webhook_url
from channels.written import tell_written

__all__ = ["BODY_LIMIT", "HttpClient", "HttpResponse", "Reach"]

#: Would end a header, or cannot be written: half a character has no bytes.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
#: A name with a version of three numbers, as Meta's specification wants it.
AGENT = "Chaski/1.0.0"
#: Would end the first line of a request, or part it.
_BREAKS = re.compile("[\x00-\x20\x7f]")


class Reach(StrEnum):
    """Where a request may go."""

    VENDOR = "vendor"  # wherever an operator pointed the account
    PUBLIC = "public"  # to a URL that a service chose: only public addresses, see channels.urls


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: the connection that it needs, and what the request's head names, ready for the wire."""

    origin: Origin
    authority: str
    path: str


class HttpClient:
    """Requests over pools of kept-open connections, one pool per ``Reach``.

    Belongs to the loop of its first request. Any number of requests may run at once: the provider's window
    bounds them.
    """

    def __init__(self) -> None:
        self._pools: dict[Reach, Pool] = {}

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
        target = target_of(url)
        request = _head(method, target, headers, len(body)) + body
        written = False
        try:
            async with asyncio.timeout(timeout):
                pool = self._pool(reach)
                wire = await pool.take(target.origin)
                try:
                    wire.write(request)
                    written = True
                    tell_written()
                    return await wire.answer()
                finally:
                    pool.give(target.origin, wire)
        except (NotHttp, OSError) as error:  # TimeoutError is an OSError
            raise in_doubt(error) if written else not_sent(error) from None

    async def close(self) -> None:
        """Close every connection; requests in flight fail."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _pool(self, reach: Reach) -> Pool:
        if reach not in self._pools:
            public = reach is Reach.PUBLIC
            self._pools[reach] = Pool(Opener(PublicResolver() if public else Resolver(), public=public))
        return self._pools[reach]


def _head(method: str, target: Target, headers: Mapping[str, str], length: int) -> bytes:
    """The request up to its body. Raises ``Misconfigured`` where a header would break it up."""
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if "User-Agent" not in headers:
        lines.append(f"User-Agent: {AGENT}")
    insist_on_headers(lines)
    if length or method not in ("GET", "HEAD", "DELETE"):
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def insist_on_headers(lines: Iterable[str]) -> None:
    """Raises ``Misconfigured`` where one of ``lines`` would break up the head of a request."""
    if any(_CONTROL.search(line) for line in lines):
        text = "a header to send holds a control character or half a character; look at the account"
        raise Misconfigured("invalid_header", text)


@lru_cache(maxsize=1024)
def target_of(url: str) -> Target:
    """Raises ``Misconfigured`` where ``url`` is none."""
    try:
        parts = URL(url)
        host, port = parts.raw_host or "", parts.port
    except ValueError:
        host, port = "", None
    if not host.strip(".") or port is None or parts.scheme not in ("http", "https") or parts.user or parts.password:
        text = "the URL to request cannot be read, or it names a user; look at the account's base_url"
        raise Misconfigured("invalid_url", text)
    if _BREAKS.search(parts.raw_path_qs + host):
        raise Misconfigured("invalid_url", "the URL to request holds a blank; look at the account's base_url")
    origin = Origin(parts.scheme == "https", host, port)
    return Target(origin, str(parts.host_port_subcomponent), parts.raw_path_qs)


def _refuse_url(url: str) -> None:
    try:
        webhook_url(url)
    except InvalidRecipient as error:
        raise RecipientRefused("url_refused", f"the URL {error}") from None


def in_doubt(error: Exception) -> SendError:
    """What it means that ``error`` came after the whole request was written."""
    if isinstance(error, TimeoutError):
        return InDoubt("timeout", "the request was sent and no whole answer came in time")
    if isinstance(error, NotHttp):
        return InDoubt("unreadable_answer", f"the request was sent and the answer could not be read ({error})")
    return InDoubt("connection_lost", f"the request was sent and the connection ended first ({_name(error)})")


def not_sent(error: Exception) -> SendError:
    """What it means that ``error`` came while the request was not, or not wholly, written."""
    if isinstance(error, AddressRefused):
        return RecipientRefused("address_refused", str(error))
    if isinstance(error, TimeoutError):
        return NotSent("connect_timeout", "no connection in time")
    if isinstance(error, NoAddress):
        return NotSent("dns", f"the host name could not be resolved ({_name(error)})")
    if isinstance(error, ssl.SSLError):
        return NotSent("tls", f"no TLS connection ({_name(error)}); look at the certificate and the host name")
    if isinstance(error, ConnectionRefusedError):
        return NotSent("refused", "the host refuses connections on this port")
    return NotSent("connect_failed", f"no connection ({_name(error)})")


def _name(error: Exception) -> str:
    """What went wrong without the host or the URL, which may hold a secret."""
    strerror = getattr(error, "strerror", None)
    return str(strerror) if strerror and "://" not in str(strerror) else type(error).__name__
