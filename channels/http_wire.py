"""One kept-open HTTP/1.1 connection: what is written, and how the bytes that come back become an answer.

Called by ``channels.http``. The parser is llhttp (httptools), strict as it comes; nothing of an answer is believed before its
last byte is there. Why this is our own: docs/adr/0013.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

BODY_LIMIT = 64 * 1024
HEAD_LIMIT = 64 * 1024
#: Of all that belongs to one answer. A body of ``BODY_LIMIT`` in chunks of one byte each has six times its size.
ANSWER_LIMIT = 512 * 1024
#: What a TLS transport has handed down it cannot be asked for; the kernel takes about this much at once.
_TLS_AT_ONCE = 64 * 1024
#: A peer that has closed its side; where the system has no such flag, only errors and full hang-ups are seen.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer. Header names are looked up in any case; ``body`` is cut to ``BODY_LIMIT`` bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotHttp(Exception):
    """What came back is not an HTTP answer, or has no end. The text says why and holds nothing of what came."""


def hung_up(transport: asyncio.Transport | None) -> bool:
    """Has the peer ended the connection, as far as the kernel knows?

    One that the server has closed a moment ago looks open until the loop reads its end. Writing to it would fail
    in a way that cannot be told from a server that read the request and died. What remains is a close that crosses the
    request on the wire.
    """
    return transport is None or transport.is_closing() or _polled(transport, _HUNG_UP)


def _polled(transport: asyncio.Transport | None, events: int) -> bool:
    poller = select.poll()
    poller.register(cast(asyncio.Transport, transport).get_extra_info("socket").fileno(), events)
    return bool(poller.poll(0))


class Wire(asyncio.Protocol):
    """A connection that carries one request at a time. Belongs to its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._reusable = True
        self._tls = self._large = False
        self._answer_bytes = 0
        self.on_message_begin()

    # -- for the client

    @property
    def reusable(self) -> bool:
        """Is the last answer complete, and may another request follow it?

        Not where the answer came before the request had left: the next one would wait behind the rest of it, and for a
        server that reads no further it would wait in vain.
        """
        return self._reusable and self._transport is not None and not self.closing and not self._unwritten

    @property
    def closing(self) -> bool:
        """Has either side ended the connection, as far as the loop knows?"""
        return self._transport is None or self._transport.is_closing()

    @property
    def hung_up(self) -> bool:
        """Has the peer ended it, as far as the kernel knows? See ``hung_up`` above."""
        return hung_up(self._transport)

    @property
    def stale(self) -> bool:
        """Of a kept connection: has the peer ended it, or said what nobody asked for and the loop has not read?

        A 408, say, which would be taken for the answer to the next request. A new TLS connection may have such bytes in all
        innocence (session tickets).
        """
        return self.closing or _polled(self._transport, _HUNG_UP | select.POLLIN)

    def write(self, request: bytes) -> None:
        """Hand ``request`` to the network. Raises ``ConnectionResetError`` where the connection is over: nothing has left."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("closed before the request was written")
        self._answer_bytes, self._in_head = 0, True
        self._large = len(request) > _TLS_AT_ONCE
        self._reusable = False  # until the whole answer is there: a late one must not be taken for the next one's
        self._answer = self._loop.create_future()
        self._transport.write(request)

    async def answer(self) -> HttpResponse:
        """The answer to what was written. Raises ``ConnectionError`` where the connection ends first, and ``NotHttp``."""
        assert self._answer is not None
        return await self._answer

    def abort(self) -> None:
        """End the connection now; who waits for an answer gets none."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def _unwritten(self) -> bool:
        """May something of the last request still be with the transport?"""
        transport = cast(asyncio.Transport, self._transport)
        return transport.get_write_buffer_size() > 0 or (self._tls and self._large)

    # -- for the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        self._answer_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(NotHttp("it goes over to another protocol"))
        except HttpParserError as error:
            self._fail(NotHttp(str(error)))  # one of llhttp's own sentences
        if self._answer_bytes > (HEAD_LIMIT if self._in_head else ANSWER_LIMIT):
            self._fail(NotHttp("headers without an end" if self._in_head else "an answer without an end"))

    def eof_received(self) -> None:
        if self._until_end:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the connection ended"))
        self._transport = None

    # -- for the parser

    def on_message_begin(self) -> None:
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._body = bytearray()
        self._in_head, self._until_end = True, False
        if self._answer is not None and self._answer.done():
            self.abort()  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: none says anything to us
            self._headers.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._in_head = status < 200  # an interim answer; the final one follows
        told = "Content-Length" in self._headers or "Transfer-Encoding" in self._headers
        self._until_end = not (told or status in _WITHOUT_BODY or self._in_head)

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) >= BODY_LIMIT:
            self._complete()
            self.abort()  # the rest is not wanted

    def on_message_complete(self) -> None:
        if self._in_head:
            return
        self._reusable = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            response = HttpResponse(self._parser.get_status_code(), self._headers, bytes(self._body[:BODY_LIMIT]))
            self._answer.set_result(response)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()
