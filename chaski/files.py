"""A file on its way to the service: its bytes, name and type from what the caller gave. Used by the client."""

from __future__ import annotations

import mimetypes
import os
from typing import IO, Any

from chaski.errors import Unavailable
from chaski.messages import File
from chaski.wire import Answer, Request


def upload_request(
    content: bytes | os.PathLike[str] | IO[bytes], name: str | None, content_type: str | None
) -> Request:
    """The call that has the file kept. Raises ``OSError`` for a path that cannot be read."""
    shown = name or _own_name(content) or "file"
    kind = content_type or mimetypes.guess_type(shown)[0] or "application/octet-stream"
    return Request("POST", "/files", (("name", shown),), _bytes_of(content), content_type=kind)


def file_of(answer: Answer, called: str) -> File:
    """The file in the service's answer. Raises ``Unavailable`` where there is none."""
    try:
        return File.from_json(answer.json(called))
    except KeyError as error:
        raise Unavailable(
            f"{called} answered with something that is no file ({error!r}). Is CHASKI_URL right?",
            code="unreadable_answer",
        ) from error


def _own_name(content: Any) -> str:
    path = content if isinstance(content, os.PathLike) else getattr(content, "name", "")
    # A file that was opened by its number has that for a name.
    return os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else ""


def _bytes_of(content: Any) -> bytes:
    if isinstance(content, os.PathLike):
        with open(content, "rb") as file:
            return file.read()
    return bytes(content) if isinstance(content, (bytes, bytearray, memoryview)) else bytes(content.read())
