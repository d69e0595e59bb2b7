"""The table ``kept_media``: which vendor calls which of our files what, and who is about to find out.

Used by ``media_ids``, for which each function is a transaction of its own, and where receipts are applied. A row without a
media id says that somebody is uploading the file; like a media id it holds until ``kept_until``, so that whoever vanishes is
followed by another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from channels.kept import MediaId
from channels.registry import providers
from deliveries.sql import Cursor, as_json

#: A media id that the vendor does not know though it is no older than that: it is the file that the vendor cannot take.
FRESH = timedelta(minutes=10)

#: In one order, so that two processes that ask for the same files do not wait for each other.
TAKE = """
WITH asked AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(file_id uuid, account_id int, place text)
), mine AS (
    INSERT INTO kept_media (file_id, account_id, place, media_id, kept_at, kept_until)
    SELECT file_id, account_id, place, '', chaski_now(), chaski_now() + make_interval(secs => %(seconds)s)
    FROM asked ORDER BY file_id, account_id, place
    ON CONFLICT (file_id, account_id, place) DO UPDATE
        SET media_id = '', kept_at = excluded.kept_at, kept_until = excluded.kept_until
        WHERE kept_media.kept_until <= chaski_now()
    RETURNING file_id, account_id, place
)
SELECT asked.file_id, asked.account_id, asked.place, m.file_id IS NOT NULL,
    CASE WHEN m.file_id IS NULL THEN coalesce(k.media_id, '') ELSE '' END
FROM asked LEFT JOIN mine m USING (file_id, account_id, place) LEFT JOIN kept_media k USING (file_id, account_id, place)
"""
KEEP = """
INSERT INTO kept_media (file_id, account_id, place, media_id, kept_at, kept_until)
VALUES (%(file_id)s, %(account_id)s, %(place)s, %(media_id)s, chaski_now(), chaski_now() + %(lasts)s)
ON CONFLICT (file_id, account_id, place) DO UPDATE
    SET media_id = excluded.media_id, kept_at = excluded.kept_at, kept_until = excluded.kept_until
"""
_KEY = "file_id = %(file_id)s AND account_id = %(account_id)s AND place = %(place)s"
RELEASE = f"DELETE FROM kept_media WHERE {_KEY} AND media_id = ''"
#: Only what the vendor was asked for: somebody else may have found out anew meanwhile.
FORGET = f"""
WITH gone AS (
    DELETE FROM kept_media WHERE {_KEY} AND media_id = %(media_id)s AND kept_at < chaski_now() - %(fresh)s::interval
    RETURNING 1
)
SELECT EXISTS (SELECT FROM gone) OR NOT EXISTS (SELECT FROM kept_media WHERE {_KEY} AND media_id = %(media_id)s)
"""
#: What the messages had went out before it was found out anew. Waits for nobody: receipts are applied with it.
DISTRUST = """
DELETE FROM kept_media WHERE (file_id, account_id, place) IN (
    SELECT k.file_id, k.account_id, k.place FROM message m, jsonb_array_elements(
        CASE WHEN jsonb_typeof(m.content -> 'attachments') = 'array' THEN m.content -> 'attachments' END) AS attached,
        kept_media k
    WHERE m.id = ANY(%(ids)s::uuid[]) AND k.account_id = m.account_id AND k.file_id::text = attached ->> 'id'
        AND k.media_id <> '' AND k.kept_at < m.sent_at AND k.kept_at < chaski_now() - %(fresh)s::interval
    ORDER BY k.file_id, k.account_id, k.place FOR UPDATE OF k SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One file at one account; ``place`` is what else its media id depends on, as the provider says."""

    file_id: UUID
    account_id: int
    place: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one key: its ``media_id``, or empty, and then whether to find out is ``mine`` now."""

    media_id: str
    mine: bool


def take(cursor: Cursor, keys: Iterable[Key], seconds: float) -> dict[Key, Found]:
    """What is known of ``keys``; what nobody knows and nobody is at is the caller's for ``seconds``."""
    cursor.execute(TAKE, {"rows": as_json([_row(key) for key in sorted(set(keys))]), "seconds": seconds})
    return {Key(*row[:3]): Found(row[4], row[3]) for row in cursor.fetchall()}


def keep(cursor: Cursor, key: Key, media: MediaId) -> None:
    """Keep what the vendor said; the latest counts."""
    cursor.execute(KEEP, {**_row(key), "media_id": media.id, "lasts": media.lasts})


def release(cursor: Cursor, key: Key) -> None:
    """Let somebody else find out."""
    cursor.execute(RELEASE, _row(key))


def forget(cursor: Cursor, key: Key, media_id: str) -> bool:
    """Forget ``media_id`` unless it is fresh; is it gone, or another's place by now?"""
    cursor.execute(FORGET, {**_row(key), "media_id": media_id, "fresh": FRESH})
    return bool(cursor.fetchone()[0])


def distrust(cursor: Cursor, told: Iterable[tuple[UUID, str]]) -> None:
    """Forget the media ids of messages for which receipts (message, code) say that the vendor could not use them."""
    ids = [message_id for message_id, code in told if code in _codes()]
    if ids:
        cursor.execute(DISTRUST, {"ids": ids, "fresh": FRESH})


@cache
def _codes() -> frozenset[str]:
    return frozenset(code for cls in providers().values() for code in cls.media_codes)


def _row(key: Key) -> dict[str, Any]:
    return {"file_id": key.file_id, "account_id": key.account_id, "place": key.place}
