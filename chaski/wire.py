"""What goes over the wire: requests, answers, and a message's fields as JSON. Used by client, batches,
transport, testing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from chaski.errors import InvalidMessage, Unavailable
from chaski.messages import File

#: Where the service's calls stand under its URL.
API_ROOT = "/api/v1"
_INSTANTS = ("send_at", "expires_at")
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?\Z")


@dataclass(frozen=True)
class Request:
    """One call. ``path`` stands under the API root and starts with a slash. ``key`` is the idempotency key,
    if any.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    key: str = ""
    content_type: str = "application/json"

    @property
    def full_path(self) -> str:
        """The path from the service's root."""
        return API_ROOT + self.path


@dataclass(frozen=True)
class Answer:
    """What came back: header names in lower case, ``retry_after`` in seconds, ``attempts`` it took."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    attempts: int = 1

    def json(self, called: str) -> dict[str, Any]:
        """The body as an object. Raises ``Unavailable`` when it is none: what answered is not the service."""
        try:
            data = json.loads(self.body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Unavailable(
                f"{called} answered {self.status} with what is not a JSON object. Something in between "
                "may have answered, or CHASKI_URL may point elsewhere",
                code="unreadable_answer",
            )
        return data


def invalid(name: str, reason: str) -> InvalidMessage:
    """The error of one field, found before anything was sent."""
    return InvalidMessage("nothing was sent", errors={name: [reason]})


def checked_key(key: object) -> str:
    """``key`` if it can be an idempotency key. It travels in a header, hence ASCII. Raises
    ``InvalidMessage``.
    """
    if isinstance(key, str) and _KEY.match(key):
        return key
    raise invalid("key", "must be 1 to 255 visible ASCII characters, with blanks only inside, like shipped:4711")


def instant(name: str, value: object) -> str:
    """An aware datetime in ISO 8601; text goes through as it is. Raises ``InvalidMessage``."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value.isoformat()
    if isinstance(value, date):
        raise invalid(
            name,
            "has no time zone, so the moment it means is not known; give an aware datetime such as "
            "datetime.now(timezone.utc), or django.utils.timezone.now()",
        )
    raise invalid(name, f"must be an aware datetime or ISO 8601 text, not {type(value).__name__}")


def encoded(fields: Mapping[str, Any]) -> bytes:
    """A message's fields as a JSON object, without those left at their default. Raises ``InvalidMessage``."""
    given = {name: value for name, value in fields.items() if not _is_default(name, value)}
    for name in _INSTANTS:
        if name in given:
            given[name] = instant(name, given[name])
    try:
        return _dumped(given)
    except (TypeError, ValueError, RecursionError):
        raise _unencodable(given) from None


def _is_default(name: str, value: object) -> bool:
    if value is None or (name == "priority" and value == "normal"):
        return True
    return isinstance(value, (tuple, list, dict)) and not value


def _dumped(value: object) -> bytes:
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, File):
        return {"id": value.id}
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _unencodable(fields: Mapping[str, Any]) -> InvalidMessage:
    for name, value in fields.items():
        try:
            _dumped({name: value})
        except (TypeError, ValueError, RecursionError) as error:
            return invalid(str(name), f"cannot be written as JSON ({error}); give text, numbers, lists and dicts")
    return InvalidMessage("nothing was sent: the message cannot be written as JSON")
