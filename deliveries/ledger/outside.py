"""Outside evidence: what clients were told, what providers accepted, what receivers got, each by its own books.

The service's rows may agree with each other and be wrong together; files that it never wrote cannot. They are read line by
line into temporary tables, so their size costs disk and not memory. They must be whole: what they leave out counts as not told,
not accepted, not received.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from deliveries.ledger.checks import Check
from deliveries.ledger.outside_checks import CHECKS

__all__ = ["CHECKS", "Check", "Files", "UnusableFile", "laid_open"]

Rows = Iterable[tuple[Any, ...]]


class UnusableFile(ValueError):
    """A file that cannot be compared: the text names the file, the line, and what a line must look like."""


@dataclass(frozen=True, slots=True)
class Files:
    """JSON lines, each file optional.

    ``told``: ``{"id", "service", "told"}``; the service by name or number, which may be left out. ``told`` false: it was asked
    for, and no answer came. ``accepted``: the simulator's own ledger, ``{"time", "provider", "recipient", "message_id",
    "provider_message_id"}``. ``received``: the bodies of callbacks as an endpoint got them, or ``{"message_id", "sequence"}``.
    """

    told: Path | None = None
    accepted: Path | None = None
    received: Path | None = None


def _told(line: dict[str, Any]) -> Rows:
    told = line.get("told", True)
    if not isinstance(told, bool):
        raise TypeError("told")
    yield UUID(line["id"]), str(line.get("service") or ""), told


def _accepted(line: dict[str, Any]) -> Rows:
    at = datetime.fromisoformat(line["time"])
    ours = UUID(line["message_id"]) if line.get("message_id") else None
    yield (
        at if at.tzinfo else at.replace(tzinfo=UTC),
        str(line["provider"]),
        str(line["recipient"]),
        ours,
        str(line["provider_message_id"]),
    )


def _received(line: dict[str, Any]) -> Rows:
    data = line.get("data", line)
    for event in data.get("events", [data]):
        yield UUID(event["message_id"]), int(event["sequence"])


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file: its table, the columns that are looked up, how a line is read, and what one looks like."""

    columns: str
    index: str
    rows: Callable[[dict[str, Any]], Rows]
    example: str


KINDS = {
    "told": Kind(
        "id uuid, service text, told bool",
        "id",
        _told,
        '{"id": "01980000-0000-7000-8000-000000000000", "service": "shop"}',
    ),
    "accepted": Kind(
        "at timestamptz, provider text, recipient text, message_id uuid, provider_message_id text",
        "message_id",
        _accepted,
        '{"time": "2030-01-31T12:00:00Z", "provider": "twilio", "recipient": "+56912345678", "message_id":'
        ' "01980000-0000-7000-8000-000000000000", "provider_message_id": "SM1"}',
    ),
    "received": Kind(
        "message_id uuid, sequence int",
        "message_id, sequence",
        _received,
        '{"message_id": "01980000-0000-7000-8000-000000000000", "sequence": 2}',
    ),
}


@contextmanager
def laid_open(files: Files) -> Iterator[frozenset[str]]:
    """The files as temporary tables while the block runs; which of them there are. Raises ``UnusableFile``."""
    given = {kind: path for kind in KINDS if (path := getattr(files, kind)) is not None}
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
            for kind, path in given.items():
                _lay(cursor, kind, path)
        yield frozenset(given)
    finally:
        with connection.cursor() as cursor:
            for kind in given:
                cursor.execute(f"DROP TABLE IF EXISTS outside_{kind}")


def _lay(cursor: Any, kind: str, path: Path) -> None:
    table, about = f"outside_{kind}", KINDS[kind]
    cursor.execute(f"CREATE TEMPORARY TABLE {table} ({about.columns})")
    with cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in _rows(kind, path):
            copy.write_row(row)
    cursor.execute(f"CREATE INDEX ON {table} ({about.index})")
    cursor.execute(f"ANALYZE {table}")


def _rows(kind: str, path: Path) -> Iterator[tuple[Any, ...]]:
    number, raw = 0, b""
    try:
        with path.open("rb") as lines:
            for raw in lines:
                number += 1
                if raw.strip():
                    yield from _parsed(kind, raw)
    except OSError as error:
        raise UnusableFile(f"--{kind} {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if not raw.endswith(b"\n"):
            return  # cut off while it was written: whoever wrote it had not yet answered
        raise UnusableFile(
            f"--{kind} {path}, line {number}, is not such a line ({type(error).__name__}: {error});"
            f" it looks like {KINDS[kind].example}"
        ) from error


def _parsed(kind: str, raw: bytes) -> list[tuple[Any, ...]]:
    line = json.loads(raw)
    if not isinstance(line, dict):
        raise TypeError(f"a JSON object is wanted, not {type(line).__name__}")
    return list(KINDS[kind].rows(line))
