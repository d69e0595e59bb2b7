"""What the client gives back: messages and batch results. Built from the service's JSON, never changed.

A newer service may send more fields and new words: unknown fields are left out, unknown statuses stay plain
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from chaski.vocabulary import Status

_FRACTION = re.compile(r"\.(\d+)")


@dataclass(frozen=True)
class MessageError:
    """Why a message did not go out. ``error_class`` is a word of ``chaski.vocabulary.ErrorClass`` (``class``
    on the wire).
    """

    code: str = ""
    error_class: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Message:
    """One message as the service knows it at this moment. Times are aware; empty text means none.

    ``final`` is true when the status can no longer change by itself. ``key`` is filled on what `send`
    returns. ``attempts``, ``receipts`` and ``events`` are filled by `get` and `wait`, as plain dicts.
    """

    id: str
    status: Status | str
    channel: str = ""
    to: str = ""
    text: str = ""
    subject: str = ""
    html: str = ""
    template: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    language: str = ""
    attachments: tuple[Any, ...] = ()
    account: str = ""
    send_at: datetime | None = None
    expires_at: datetime | None = None
    priority: str = "normal"
    ordering_key: str = ""
    reference: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    batch_id: str = ""
    waiting_for: str = ""
    waiting_until: datetime | None = None
    waiting_behind: str = ""
    provider: str = ""
    provider_message_id: str = ""
    error: MessageError | None = None
    attempt_count: int = 0
    in_doubt_count: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    due_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    finished_at: datetime | None = None
    final: bool = False
    url: str = ""
    attempts: tuple[Mapping[str, Any], ...] = ()
    receipts: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        """The message in an answer of the service. Raises ``KeyError`` without ``id`` or ``status``."""
        known = {name: data[name] for name in _NAMES if data.get(name) is not None}
        read = {name: _READERS[name](value) if name in _READERS else value for name, value in known.items()}
        return cls(id=str(data["id"]), status=_status(data["status"]), **read)


@dataclass(frozen=True)
class File:
    """A file that the service keeps, as `upload` gives it back: an attachment of any number of messages."""

    id: str
    sha256: str = ""
    size: int = 0
    name: str = ""
    content_type: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> File:
        """The file in an answer of the service. Raises ``KeyError`` without ``id``."""
        known = {each.name: data[each.name] for each in fields(cls) if data.get(each.name) is not None}
        return cls(**{**known, "id": str(data["id"])})


@dataclass(frozen=True)
class Rejected:
    """One row that was not accepted: its place in what was given to `send_many` (from 0), why, and the row
    itself.
    """

    index: int
    errors: Mapping[str, list[str]]
    row: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class BatchResult:
    """What became of the rows of one `send_many`: every row is accepted, a duplicate or rejected.

    ``duplicates`` were accepted before under the same key. ``id`` is empty when there was nothing to send.
    """

    id: str
    accepted: int = 0
    duplicates: int = 0
    rejected: tuple[Rejected, ...] = ()


def parsed_time(value: object) -> datetime | None:
    """ISO 8601 as the service writes it; None for anything else: a message that went out must not fail on its
    clock.
    """
    if not isinstance(value, str):
        return None
    text = _FRACTION.sub(lambda match: "." + match.group(1)[:6].ljust(6, "0"), value)
    try:
        # Before Python 3.11 `fromisoformat` knows neither Z nor fractions of other lengths.
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        return None
    return moment if moment.utcoffset() is not None else None


def _status(word: object) -> Status | str:
    try:
        return Status(str(word))
    except ValueError:
        return str(word)


def _error(raw: object) -> MessageError | None:
    if not isinstance(raw, Mapping):
        return None
    return MessageError(*(str(raw.get(name) or "") for name in ("code", "class", "detail")))


_READERS: dict[str, Callable[[Any], Any]] = {
    "error": _error,
    **dict.fromkeys(("attachments", "tags", "attempts", "receipts", "events"), tuple),
    **dict.fromkeys((each.name for each in fields(Message) if each.type == "datetime | None"), parsed_time),
}
_NAMES = tuple(each.name for each in fields(Message) if each.name not in ("id", "status"))
