"""What the hand-written statements share: the cursor they run on and how rows travel as one JSON parameter.

Used by every stage that writes SQL; both Django's cursor and psycopg's own satisfy ``Cursor``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID


class Cursor(Protocol):
    """The part of a database cursor that the stages use."""

    def execute(self, query: Any, params: Any = ..., /) -> Any: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


def storable(text: str) -> str:
    """A stranger's ``text`` as PostgreSQL can keep it: without NUL, half characters replaced."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def as_json(rows: Sequence[Any] | dict[str, Any]) -> str:
    """``rows`` as the JSON text that ``jsonb_to_recordset`` takes. Times become ISO 8601, ids their canonical form."""
    return json.dumps(rows, default=_plain, ensure_ascii=False, allow_nan=False)
