"""The shape of a message as a caller gives it: every field with its rule and the sentence that refuses it.

Called by ``draft``. A rule returns the checked value or raises ``ValueError`` with what is wrong and how to mend it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from channels.media import MEDIA
from chaski.vocabulary import Lane
from deliveries.conf import limits
from deliveries.intake import attachments

KEY_LIMIT = 255
TAG_LIMIT = 20
DEPTH_LIMIT = 20
_DAY_SECONDS = 86_400
_OBJECT_BYTES = 65_536
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def text_of(limit: int, *, lines: bool = True) -> Callable[[Any], str]:
    """A string of at most ``limit`` characters that PostgreSQL can keep; without ``lines`` on one line."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a string, not {_kind(value)}")
        if len(value) > limit:
            raise ValueError(f"has {len(value):,} characters; at most {limit:,} are taken")
        if _CONTROL.search(value):
            raise ValueError("holds a control character such as NUL; remove it")
        if not lines and ("\n" in value or "\r" in value):
            raise ValueError("must be a single line")
        if not value.isascii():
            _refuse_unkeepable(value)
        return value

    return check


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def channel(value: Any) -> str:
    if not isinstance(value, str) or value not in MEDIA:
        raise ValueError(f"is not a channel; one of {', '.join(MEDIA)}")
    return value


def moment(value: Any) -> datetime:
    """An ISO 8601 time with its zone, as aware UTC."""
    if isinstance(value, datetime):
        parsed = value
    else:
        if not isinstance(value, str):
            raise ValueError("must be a time such as 2030-01-31T12:00:00Z")
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("is not a time; write it as 2030-01-31T12:00:00Z") from error
    if parsed.tzinfo is None:
        raise ValueError("has no time zone; write it as 2030-01-31T12:00:00Z")
    try:
        return parsed.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error


def lane(value: Any) -> Lane:
    try:
        return Lane(value)
    except ValueError as error:
        raise ValueError("must be urgent, normal or bulk") from error


def uuid7(value: Any) -> UUID:
    """A UUIDv7 whose time is within a day of now: older ones have no partition to live in."""
    try:
        parsed = value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError("is not a UUID") from error
    if parsed.version != 7:
        raise ValueError("must be a UUIDv7 (RFC 9562); leave it out to get one")
    made = (parsed.int >> 80) / 1000
    if abs(datetime.now(UTC).timestamp() - made) > _DAY_SECONDS:
        raise ValueError("was minted more than a day away from now; mint it when the message is made")
    return parsed


def tags(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of strings")
    if len(value) > TAG_LIMIT:
        raise ValueError(f"has {len(value)} entries; at most {TAG_LIMIT} are taken")
    one = text_of(64, lines=False)
    return [one(tag) for tag in value]


def json_object(value: Any) -> dict[str, Any]:
    """A JSON object of at most 64 kB whose strings PostgreSQL can keep."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be an object, not {_kind(value)}")
    _refuse_odd(value, DEPTH_LIMIT)
    encoded = json.dumps(value, ensure_ascii=False).encode()
    if len(encoded) > _OBJECT_BYTES:
        raise ValueError(f"has {len(encoded):,} bytes; at most {_OBJECT_BYTES:,} are taken")
    return dict(value)


def _refuse_odd(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"is nested more than {DEPTH_LIMIT} levels deep")
    if isinstance(value, str):
        _refuse_unkeepable(value)
    elif isinstance(value, Mapping):
        for name, member in value.items():
            _refuse_unkeepable(name)
            _refuse_odd(member, depth - 1)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _refuse_odd(member, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite, which JSON does not know")
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"must be plain JSON, and {_kind(value)} is none")


def _refuse_unkeepable(text: Any) -> None:
    if not isinstance(text, str):
        raise ValueError(f"may have strings as names only, not {_kind(text)}")
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character (a lone surrogate); send valid UTF-8") from error


FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": uuid7,
    "key": text_of(KEY_LIMIT, lines=False),
    "channel": channel,
    "to": text_of(2048, lines=False),
    "text": text_of(limits().text_chars),
    "subject": text_of(998, lines=False),
    "html": text_of(limits().message_bytes),
    "template": text_of(64, lines=False),
    "context": json_object,
    "language": text_of(16, lines=False),
    "attachments": attachments.named,
    "account": text_of(64, lines=False),
    "send_at": moment,
    "expires_at": moment,
    "priority": lane,
    "ordering_key": text_of(KEY_LIMIT, lines=False),
    "reference": text_of(KEY_LIMIT, lines=False),
    "tags": tags,
    "metadata": json_object,
    "options": json_object,
}
