"""Files of services: kept once however often they are uploaded, found by those who may, shown to vendors by a signed URL.

Called by the API (``keep``, ``read``), by intake (``shelf.find``) and by the delivery engine, which reads their bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import Lock
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from django.core import signing
from uuid_utils.compat import uuid7

from deliveries.postgresql.prepared import prepared, single_statement

#: What nobody names is kept for a week, and what a message names for a month longer than that may go out: for its repeats.
UNUSED, AFTERWARDS = timedelta(days=7), timedelta(days=30)
#: More than that at once, so that the next ten thousand messages with the same file find nothing to do.
AHEAD = timedelta(days=31)
#: Vendors fetch within seconds, some once more when the message is opened.
URL_DAYS = 7
_SALT = "chaski.file"
_KNOWN_LIMIT = 10_000

KEEP = """
INSERT INTO file (id, service_id, sha256, size, name, content_type, content, kept_until)
VALUES (%(id)s, %(service)s, %(sha256)b, %(size)s, %(name)s, %(content_type)s, %(content)b, chaski_now() + %(unused)s)
ON CONFLICT (service_id, sha256, name, content_type)
    DO UPDATE SET kept_until = greatest(file.kept_until, excluded.kept_until)
RETURNING id
"""
EXTEND = """
UPDATE file SET kept_until = %(until)s::timestamptz + %(ahead)s
WHERE id = ANY(%(ids)s::uuid[]) AND service_id = %(service)s AND kept_until < %(until)s::timestamptz + %(afterwards)s
"""
#: After ``EXTEND``, in a statement of its own: it must not see a file that was removed meanwhile.
FIND = """
SELECT id, name, content_type, size, encode(sha256, 'hex'), kept_until FROM file
WHERE id = ANY(%(ids)s::uuid[]) AND service_id = %(service)s
"""
READ = "SELECT name, content_type, content FROM file WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file without its bytes."""

    id: UUID
    name: str
    content_type: str
    size: int
    sha256: str
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Content:
    """A file with its bytes."""

    name: str
    content_type: str
    content: bytes


def keep(service_id: int, content: bytes, name: str, content_type: str) -> tuple[UUID, str]:
    """Keep a file; its id and its SHA-256 in hexadecimal. The same bytes under the same name and type have the same id.

    Concurrent calls with one file give one id. Raises Django's database errors; then nothing was kept.
    """
    digest = sha256(content)
    given: dict[str, Any] = {
        "id": uuid7(),
        "service": service_id,
        "sha256": digest.digest(),
        "size": len(content),
        "name": name,
        "content_type": content_type,
        "content": content,
        "unused": UNUSED,
    }
    with single_statement(), prepared() as cursor:
        cursor.execute(KEEP, given)
        [(file_id,)] = cursor.fetchall()
    return file_id, digest.hexdigest()


class Shelf:
    """The files that this process has seen lately. They never change, so what is known of one stays true. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[tuple[int, UUID], Kept] = OrderedDict()

    def find(self, service_id: int, ids: Iterable[UUID], until: datetime) -> dict[UUID, Kept]:
        """Those of ``ids`` that are files of the service, kept from now on for a month after ``until`` at least.

        The others are left out. Raises Django's database errors.
        """
        wanted = set(ids)
        found = self._remembered(service_id, wanted, until + AFTERWARDS)
        missing = sorted(wanted - set(found))
        if missing:
            found |= self._looked_up(service_id, missing, until)
        return found

    def forget(self) -> None:
        """Look everything up anew."""
        with self._lock:
            self._known.clear()

    def _remembered(self, service_id: int, ids: set[UUID], until: datetime) -> dict[UUID, Kept]:
        with self._lock:
            known = ((each, self._known.get((service_id, each))) for each in ids)
            return {each: kept for each, kept in known if kept is not None and kept.kept_until >= until}

    def _looked_up(self, service_id: int, ids: list[UUID], until: datetime) -> dict[UUID, Kept]:
        given = {"service": service_id, "ids": ids, "until": until, "afterwards": AFTERWARDS, "ahead": AHEAD}
        with prepared() as cursor:
            cursor.execute(EXTEND, given)
            cursor.execute(FIND, given)
            found = {row[0]: Kept(*row) for row in cursor.fetchall()}
        with self._lock:
            self._known.update({(service_id, each): kept for each, kept in found.items()})
            while len(self._known) > _KNOWN_LIMIT:
                self._known.popitem(last=False)
        return found


shelf = Shelf()


def url_of(file_id: UUID, name: str) -> str:
    """Where anybody who has this URL can fetch the file for some days. It ends in the file's name, which vendors go by."""
    today = (
        datetime.now(UTC).date().toordinal()
    )  # the same URL all day, so that vendors and proxies may keep what they got
    token = signing.Signer(salt=_SALT).sign_object([file_id.hex, today])
    return f"{settings.CHASKI_PUBLIC_URL}/files/{token}/{quote(name, safe='')}"


def read(token: str) -> Content | None:
    """The file that ``url_of`` was asked for; None for a token that is not ours or too old, and for a file that is gone."""
    try:
        given, day = signing.Signer(salt=_SALT).unsign_object(token)
        file_id, age = UUID(given), datetime.now(UTC).date().toordinal() - day
    except (signing.BadSignature, ValueError, TypeError, AttributeError):
        return None
    if not 0 <= age <= URL_DAYS:
        return None
    with prepared() as cursor:
        cursor.execute(READ, {"id": file_id}, binary=True)
        row = cursor.fetchone()
    return Content(row[0], row[1], bytes(row[2])) if row else None
