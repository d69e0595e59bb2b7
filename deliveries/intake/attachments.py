"""The attachments of a message: from what a caller names to what its row keeps, and to what its provider gets.

Called by ``fields`` (the shape), by ``draft`` (the files behind it) and by the delivery engine (``of``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from channels.attachments import CONTENT_ID, Attachment, Read
from channels.base import InvalidRecipient, NotSent
from channels.urls import webhook_url
from deliveries.files import Kept, shelf, url_of

COUNT_LIMIT = 20
NAME_BYTES = 255
_MEMBERS = ("id", "url", "name", "content_type", "content_id", "sha256", "size")
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")
#: What could end a line, hide another character or lead out of a folder.
_NOT_IN_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff/\\\\]")
_SAY_HOW = 'must name files that were sent to /api/v1/files: [{"id": "..."}], or public ones: [{"url": "https://..."}]'


def named(value: Any) -> list[dict[str, Any]]:
    """What a caller names, by its shape alone. Raises ``ValueError``."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(_SAY_HOW)
    if len(value) > COUNT_LIMIT:
        raise ValueError(f"has {len(value)} entries; at most {COUNT_LIMIT} are taken")
    return [_one(entry) for entry in value]


def _one(entry: Any) -> dict[str, Any]:
    given = {"id": entry} if isinstance(entry, (str, UUID)) else entry
    if not isinstance(given, Mapping):
        raise ValueError(_SAY_HOW)
    unknown = next((name for name in given if name not in _MEMBERS), None)
    if unknown is not None:
        raise ValueError(f"knows no {str(unknown)[:64]!r}; an entry may have {', '.join(_MEMBERS)}")
    present = {name: given[name] for name in _MEMBERS if given.get(name) is not None}
    if ("id" in present) == ("url" in present):
        raise ValueError(_SAY_HOW)
    for name, rule in _RULES.items():
        if name in present:
            present[name] = rule(present[name])
    return present


def file_name(value: Any) -> str:
    """A name as people see it. Raises ``ValueError``."""
    if not isinstance(value, str) or not value.strip() or _NOT_IN_NAME.search(value):
        raise ValueError("has a name that is none: give text without slashes, line breaks and control characters")
    if len(value.encode()) > NAME_BYTES:
        raise ValueError(f"has a name of more than {NAME_BYTES} bytes")
    return value.strip()


def media_type(value: Any) -> str:
    """A media type without its parameters, in lower case. Raises ``ValueError``."""
    found = value.partition(";")[0].strip().lower() if isinstance(value, str) else ""
    if not _TYPE.fullmatch(found):
        raise ValueError("has a content_type that is none; give one such as application/pdf")
    return found


def _uuid(value: Any) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError("has an id that is none; give the id that /api/v1/files answered") from error


def _url(value: Any) -> str:
    try:
        return webhook_url(value if isinstance(value, str) else "")
    except InvalidRecipient as error:
        raise ValueError(f"has a url that {error}") from error


def _content_id(value: Any) -> str:
    if not isinstance(value, str) or not CONTENT_ID.fullmatch(value):
        raise ValueError("has a content_id that is none; give letters, digits and . _ @ + - as in cid:logo.png")
    return value


_RULES: dict[str, Callable[[Any], Any]] = {
    "id": _uuid,
    "url": _url,
    "name": file_name,
    "content_type": media_type,
    "content_id": _content_id,
}


def kept(service_id: int, wanted: Sequence[Mapping[str, Any]], until: datetime) -> list[dict[str, Any]]:
    """What the row keeps of ``wanted``, whose files are kept as long as the message may need them.

    Raises ``ValueError`` for a file that the service does not have, and for one that is not what the caller says of it.
    """
    files = shelf.find(service_id, (entry["id"] for entry in wanted if "id" in entry), until)
    return [_row_of_file(entry, files) if "id" in entry else _row_of_url(entry) for entry in wanted]


def _row_of_file(entry: Mapping[str, Any], files: Mapping[UUID, Kept]) -> dict[str, Any]:
    file = files.get(entry["id"])
    if file is None:
        raise ValueError(f"names {entry['id']}, and this service has no such file; send it to /api/v1/files first")
    for name, is_so in (("sha256", file.sha256), ("size", file.size)):
        if name in entry and entry[name] != is_so:
            raise ValueError(f"says that {name} of {file.id} is {str(entry[name])[:80]!r}, and it is {is_so!r}")
    row = {"id": str(file.id), "name": file.name, "content_type": file.content_type, "size": file.size}
    said = {name: entry[name] for name in ("name", "content_type", "content_id") if name in entry}
    return {**row, "sha256": file.sha256, **said}


def _row_of_url(entry: Mapping[str, Any]) -> dict[str, Any]:
    """By a URL nothing is known but what the caller says: vendors want to know what kind of file it is before they fetch it."""
    if "content_type" not in entry:
        raise ValueError("names a url and no content_type, which vendors must be told; add one such as image/jpeg")
    said = {name: entry[name] for name in ("url", "name", "content_type", "content_id") if name in entry}
    return {"name": _last_part(entry["url"]), **said}


def _last_part(url: str) -> str:
    try:
        return file_name(unquote(urlsplit(url).path.rpartition("/")[2]))
    except ValueError:
        return "file"


def unread(file_id: UUID) -> Read:
    """For who only looks at a message: the file is not read."""

    async def read() -> bytes:
        raise NotSent("not_read", f"the file {file_id} is not read where nothing is sent")

    return read


def of(content: Mapping[str, Any], reader: Callable[[UUID], Read]) -> tuple[Attachment, ...]:
    """The attachments as a provider gets them; ``reader`` gives what reads a file's bytes.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``AttributeError`` for a row that ``kept`` cannot have written.
    """
    return tuple(_attachment(row, reader) for row in content.get("attachments", ()))


def _attachment(row: Mapping[str, Any], reader: Callable[[UUID], Read]) -> Attachment:
    name, kind, shown = file_name(row["name"]), media_type(row["content_type"]), row.get("content_id", "")
    if "id" not in row:
        return Attachment(name, kind, str(row["url"]), content_id=shown)
    file_id = UUID(row["id"])
    return Attachment(name, kind, url_of(file_id, name), int(row["size"]), shown, reader(file_id), file_id)
