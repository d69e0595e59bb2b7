"""How a request's body is read: never more of it than its bound, whatever Content-Length says, and also when it comes in chunks.

A body that comes slowly, or never, holds one of a few threads: whoever is unknown gets seconds, and so does what is refused.

Called by every view that takes a body.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from django.http import HttpRequest
from rest_framework.request import Request

from deliveries.api.deadlines import deadlines
from deliveries.api.parsing import StrictJSONParser
from deliveries.api.problems import Problem

#: What is read of a body that is too large anyway, so that its sender is ready to hear so.
DRAINED_BYTES, PIECE_BYTES = 32_000_000, 64_000
#: How long that may take, and how long the whole body of somebody who shows no key.
DRAIN_SECONDS, READ_SECONDS = 3.0, 5.0
JSON = StrictJSONParser.media_type
LINES = "application/x-ndjson"
_CUT_OFF = "The body ended before it was complete. Send it again with the same key."

#: The server reads ahead, so that the last rows before the break may be lost with it.
_BROKEN_OFF = (
    "The body ended before it was complete. Rows that had arrived are kept, the last of them perhaps not; send all again"
    " with the same keys."
)


class Stream(Protocol):
    """The part of a file that is needed here."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


def content_type_of(request: Request, *taken: str) -> str:
    """The body's media type without its parameters. Raises ``Problem`` 415 for one that is not ``taken``."""
    given = (request.content_type or "").partition(";")[0].strip().lower()
    if given not in taken:
        named = f"The body is sent as {given[:100]}" if given else "The body has no Content-Type"
        raise Problem(415, "unsupported_media_type", f"{named}; send it as {' or '.join(taken)}.")
    return given


def json_of(request: Request, limit: int) -> Any:
    """The JSON value of the body. Raises ``Problem`` for another media type or over ``limit`` bytes, ``ParseError``.

    Only for callers that are known: what is too large is read to its end for a while, so that they hear so.
    """
    content_type_of(request, JSON)
    return StrictJSONParser().parse(io.BytesIO(bytes_of(request, limit)))


def bytes_of(request: Request, limit: int) -> bytes:
    """The body as it is, at most ``limit`` bytes. Raises ``Problem`` 413 for more. Only for callers that are known."""
    body = _bounded(request._request, limit)
    if body is None:
        _drain(request._request)
        raise _too_large(limit)
    return body


def of_a_stranger(request: HttpRequest, limit: int) -> bytes:
    """The body of somebody unknown, at most ``limit`` bytes in a few seconds. Raises ``Problem`` 413 for more, 400 where it
    was cut off or came too slowly; the connection ends with that answer."""
    with ended_after(request.META, READ_SECONDS):
        body = _bounded(request, limit)
    if body is None:
        _end(request.META)
        raise _too_large(limit)
    return body


def _bounded(request: HttpRequest, limit: int) -> bytes | None:
    """The body; None if it has more than ``limit`` bytes. Raises ``Problem`` 400 where it was cut off."""
    declared, stream = declared_bytes(request), _stream_of(request)
    body = b"" if declared > limit else _read(stream, limit + 1)
    if max(declared, len(body)) > limit:
        return None
    if len(body) < declared:
        raise Problem(400, "malformed", _CUT_OFF)
    return body


def _drain(request: HttpRequest) -> None:
    """Read what else comes, up to a bound: whoever is answered while it still sends meets a reset instead of the answer."""
    stream = _stream_of(request)
    with suppress(Problem), ended_after(request.META, DRAIN_SECONDS) as over:
        for _ in range(DRAINED_BYTES // PIECE_BYTES):
            if over.is_set() or not _read(stream, PIECE_BYTES):
                return
    _end(request.META)


@contextmanager
def ended_after(meta: Mapping[str, Any], seconds: float) -> Iterator[threading.Event]:
    """Let no read in the block wait for longer; the event tells that it is over. ``meta`` is the request's WSGI environment.

    A time-out on the socket would begin anew with every byte that trickles in.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        _end(meta)

    with deadlines.within(seconds, end):
        yield over


def _end(meta: Mapping[str, Any]) -> None:
    """Read nothing more from the connection: a read that waits ends at once, and after the answer so does the connection."""
    wire = meta.get("gunicorn.socket")
    if wire is None:
        return
    # gunicorn takes no further request from behind a body that failed: the rest of this one could look like one
    meta["wsgi.input"].failed = True
    with suppress(OSError):
        wire.shutdown(socket.SHUT_RD)


def lines(request: HttpRequest, limit: int) -> Iterator[bytes | None]:
    """The lines of the body that are not blank, at constant memory; None in the place of one over ``limit`` bytes."""
    stream = _stream_of(request)
    while line := _readline(stream, limit + 1):
        if len(line) > limit:
            _skip(stream, line, limit)
            yield None
        elif line.strip():
            yield line


def _skip(stream: Stream, line: bytes, limit: int) -> None:
    while line and not line.endswith(b"\n"):
        line = _readline(stream, limit)


def declared_bytes(request: HttpRequest) -> int:
    """What Content-Length says; 0 where it says nothing."""
    text = request.META.get("CONTENT_LENGTH") or "0"
    return int(text) if text.isascii() and text.isdecimal() else 0


def _stream_of(request: HttpRequest) -> Stream:
    # A body in chunks has no length, so that Django would read nothing of it; gunicorn ends the stream by itself.
    if "HTTP_TRANSFER_ENCODING" in request.META and request.META.get("wsgi.input_terminated"):
        stream: Stream = request.META["wsgi.input"]
        return stream
    return request


def _read(stream: Stream, size: int) -> bytes:
    try:
        return stream.read(size)
    except Exception as error:
        raise Problem(400, "malformed", _CUT_OFF) from error


def _readline(stream: Stream, size: int) -> bytes:
    try:
        return stream.readline(size)
    except Exception as error:
        raise Problem(400, "malformed", _BROKEN_OFF) from error


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "too_large", f"The body is larger than {limit:,} bytes. Nothing was stored; send less in more requests."
    )
