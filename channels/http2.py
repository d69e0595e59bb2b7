"""HTTP/2 to one vendor: many requests at once over few long-lived connections, and always known whether a request had left.

Called by providers whose vendor speaks HTTP/2 only, on the asyncio loop of a worker process. All rules are those of
``channels.http``: no redirect, no cookie, no proxy, no repeat, nothing compressed, at most ``BODY_LIMIT`` bytes of an answer,
certificates verified. It goes where an operator pointed the account (``Reach.VENDOR``) and takes no URL from a service.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Mapping
from functools import cache

from channels.base import NotSent, SendError
from channels.dns import Resolver
from channels.http import AGENT, HttpResponse, Target, in_doubt, insist_on_headers, not_sent, target_of
from channels.http2_stream import Unprocessed
from channels.http2_wire import Http2Wire, NoHttp2
from channels.http_pool import CONNECT_SECONDS, Opener
from channels.http_wire import NotHttp
from channels.written import tell_written

#: To one vendor through one account. A further one is opened when all others carry as much as the vendor allows.
CONNECTIONS = 4


@cache
def tls_context() -> ssl.SSLContext:
    """What the system trusts; names are checked, and nothing but HTTP/2 is spoken."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


class Http2Client:
    """Requests to the server at ``base_url``, over ``https`` or, with prior knowledge, over ``http``.

    Belongs to the loop of its first request. Any number of requests may run at once: what the server does not allow yet waits.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._opener = Opener(Resolver(), public=False)
        self._wires: list[Http2Wire] = []
        self._opening: asyncio.Task[None] | None = None
        #: A connection has room that it had not, or is over.
        self._moved = asyncio.Event()
        self._not_before = 0.0

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout: float,  # noqa: ASYNC109 - the caller's deadline decides between NotSent and InDoubt
    ) -> HttpResponse:
        """One request for ``path`` below the base URL and its answer, whatever the status, within ``timeout`` seconds.

        Raises ``NotSent`` where the request was not wholly written (no connection, no room on one in time) or the server
        says that it has not processed it (GOAWAY, REFUSED_STREAM), ``InDoubt`` where it was written and no whole answer came,
        ``Misconfigured`` where URL or headers are none. No text of these holds the path.
        """
        target = target_of(self._base_url)
        head = _head(method, target, path, headers, len(body))
        written = False
        try:
            async with asyncio.timeout(timeout):
                wire = await self._with_room(target)
                stream = wire.begin(head, body)
                try:
                    written = await wire.hand_over(stream)
                    if written:
                        tell_written()
                    return await stream.answer
                finally:
                    wire.leave(stream)
        except Unprocessed as error:
            raise NotSent(error.code, str(error)) from None
        except (NotHttp, OSError) as error:  # TimeoutError is an OSError
            raise in_doubt(error) if written else _not_sent(error) from None

    def retire(self) -> None:
        """Begin nothing more on the connections that are open; what is under way goes on."""
        for wire in self._wires:
            wire.retire()

    async def close(self) -> None:
        """Close every connection; requests in flight fail."""
        if self._opening is not None:
            self._opening.cancel()
        for wire in self._wires:
            wire.end(_closed())
        await self._opener.close()

    async def _with_room(self, target: Target) -> Http2Wire:
        """A connection that can carry one request more at this moment. Raises ``OSError``."""
        async with asyncio.timeout(CONNECT_SECONDS):
            while (wire := next((each for each in self._wires if each.room), None)) is None:
                if self._opening is None and self._may_open():
                    self._begin_opening(target)
                await self._change()
            return wire

    async def _change(self) -> None:
        """Until a connection may have room, or is over, or another is open; fails with the opening only where there is none."""
        opening = self._opening
        if opening is None or any(not each.over for each in self._wires):
            self._moved.clear()
            await self._moved.wait()
            return
        try:
            await asyncio.shield(opening)  # who gives up takes it from nobody else
        except asyncio.CancelledError:
            if opening.cancelled():
                raise _closed() from None
            raise

    def _may_open(self) -> bool:
        """Beside others that are open not again at once, where it was refused a moment ago."""
        usable = sum(not each.over for each in self._wires)
        return not usable or (usable < CONNECTIONS and asyncio.get_running_loop().time() >= self._not_before)

    def _begin_opening(self, target: Target) -> None:
        opening = self._opening = asyncio.ensure_future(self._open(target))
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is not None:  # nobody may be waiting any more
            self._not_before = opening.get_loop().time() + CONNECT_SECONDS
        self._moved.set()

    async def _open(self, target: Target) -> None:
        self._wires = [each for each in self._wires if not each.ended]
        async with asyncio.timeout(CONNECT_SECONDS):
            wire = await self._opener.open(target.origin, lambda: Http2Wire(self._moved.set), tls_context)
            try:
                await wire.ready()
            except BaseException:
                wire.end(_closed())
                raise
        if wire.over:
            wire.end(_closed())
            raise ConnectionResetError(errno.ECONNRESET, "closed by the peer as soon as it was open")
        self._wires.append(wire)


def _head(method: str, target: Target, path: str, headers: Mapping[str, str], length: int) -> dict[str, str]:
    """Pseudo-header fields and header fields: RFC 9113, section 8.3.1. Raises ``Misconfigured``."""
    insist_on_headers([path, *(f"{name}: {value}" for name, value in headers.items())])
    pseudo = {
        ":method": method,
        ":scheme": "https" if target.origin.tls else "http",
        ":authority": target.authority,
        ":path": target.path.rstrip("/") + path,
    }
    fields = {"user-agent": AGENT} | {name.lower(): value for name, value in headers.items()}
    return pseudo | fields | ({"content-length": str(length)} if length else {})


def _closed() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "closed by us")


def _not_sent(error: Exception) -> SendError:
    if isinstance(error, NoHttp2):
        return NotSent("no_http2", "the server does not speak HTTP/2; look at the account's base_url")
    return not_sent(error)
