"""One request over HTTP/2 and what becomes of it. Made by ``channels.http2_wire``, waited for by ``channels.http2``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from multidict import CIMultiDict

from channels.http_wire import BODY_LIMIT, HttpResponse, NotHttp


class Unprocessed(Exception):
    """The server says that it has not acted on the request and will not: RFC 9113, sections 6.8 and 8.7."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True, eq=False)
class Stream:
    """One request and its answer. ``rest``: what of its body is not written yet."""

    id: int
    rest: bytes
    begun_at: float
    answer: asyncio.Future[HttpResponse]
    status: int = 0
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    body: bytearray = field(default_factory=bytearray)

    def read_head(self, head: Iterable[tuple[bytes, bytes]]) -> None:
        """Status and headers as they came. Raises ``NotHttp``."""
        for name, value in head:
            text = bytes(value).decode("utf-8", "surrogateescape")
            if name == b":status":
                self.status = _status(text)
            else:
                self.headers.add(bytes(name).decode("latin-1"), text)

    def complete(self) -> None:
        """The answer is whole, or as much of it as is wanted."""
        if not self.answer.done():
            self.answer.set_result(HttpResponse(self.status, self.headers, bytes(self.body[:BODY_LIMIT])))

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # nobody may be waiting any more


def _status(text: str) -> int:
    if len(text) != 3 or not (text.isascii() and text.isdigit()):
        raise NotHttp("its status is none")
    return int(text)
