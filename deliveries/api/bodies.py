"""How a request's body is read: never more of it than its bound, whatever Content-Length says, and also when it comes in chunks.

Called by every view that takes a body.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Protocol

from django.http import HttpRequest
from rest_framework.request import Request

from deliveries.api.parsing import StrictJSONParser
from deliveries.api.problems import Problem

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
    """The JSON value of the body. Raises ``Problem`` for another media type or over ``limit`` bytes, ``ParseError``."""
    content_type_of(request, JSON)
    return StrictJSONParser().parse(io.BytesIO(bounded(request._request, limit)))


def bounded(request: HttpRequest, limit: int) -> bytes:
    """The body, which has at most ``limit`` bytes. Raises ``Problem`` 413 for more, 400 where it was cut off."""
    declared = _declared(request)
    if declared > limit:
        raise _too_large(limit)
    body = _read(_stream_of(request), limit + 1)
    if len(body) > limit:
        raise _too_large(limit)
    if len(body) < declared:
        raise Problem(400, "malformed", _CUT_OFF)
    return body


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


def _declared(request: HttpRequest) -> int:
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
