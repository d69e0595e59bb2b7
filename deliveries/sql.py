"""What the hand-written statements share: their cursor, how rows travel as one JSON parameter, and which errors pass.

Used by every stage that writes SQL; both Django's cursor and psycopg's own satisfy ``Cursor``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import psycopg
import psycopg.errors
from django.db import Error as DjangoError
from django.db import InterfaceError, OperationalError

#: SQLSTATEs that say nothing about the statement: the same one may succeed in a moment, on this connection or another
#: (PostgreSQL 18, appendix A). Classes: connection, resources (disk full, memory, too many connections), operator
#: intervention (statement timeout, shutdown, starting up), system error.
_AWAY_CLASSES = ("08", "53", "57", "58")
#: Read-only (a standby, or a primary that was told so), ended while idle in a transaction or by its length, roles that a
#: restart has not loaded yet, serialization, unknown end of a statement, deadlock, lock timeout.
_AWAY_STATES = frozenset({"25006", "25P03", "25P04", "28000", "28P01", "40001", "40003", "40P01", "55P03"})
_LOCK_TIMEOUT = "55P03"
#: Of these, what rows that somebody else holds lead to: lock and statement timeout, deadlock.
_LOCK_WAIT_STATES = frozenset({_LOCK_TIMEOUT, "57014", "40P01"})
#: Classes that blame what the database is to this code: features and plans, catalogues and schemas that are not there, prepared
#: statements that went with a session, names and rights, internal errors.
_UNLIKE_CLASSES = ("0A", "26", "3D", "3F", "42", "XX")
#: The classes of all of these in psycopg, for who must name classes; some more errors are of them.
AWAY_ERRORS: tuple[type[psycopg.Error], ...] = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    *(psycopg.errors.lookup(s) for s in sorted(_AWAY_STATES)),
)


def is_away(error: BaseException) -> bool:
    """Whether the database is away for now: ``error`` blames the server or the way to it, not what was asked.

    Takes psycopg's errors and Django's. What is not away will fail in the same way however often it is repeated.
    """
    cause = _cause(error)
    if not isinstance(cause, (psycopg.Error, DjangoError)):
        return False
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # The client's own: no connection came about, or it broke.
        kinds = (psycopg.OperationalError, psycopg.InterfaceError, OperationalError, InterfaceError)
        return isinstance(cause, kinds)
    return state[:2] in _AWAY_CLASSES or state in _AWAY_STATES


def is_not_now(error: BaseException) -> bool:
    """Whether ``error`` says nothing of the rows that were written: the database is away, or it is not what this code expects.

    That is so before a migration, after the restore of an older schema, with a right that was taken away. For who keeps
    what cannot be written now: it may be taken once somebody has mended that. Who answers somebody asks ``is_away``.
    """
    return is_away(error) or is_unlike(error)


def is_unlike(error: BaseException) -> bool:
    """Whether ``error`` blames what the database is to this code: a schema, a right, a plan, damage."""
    return (getattr(_cause(error), "sqlstate", None) or "")[:2] in _UNLIKE_CLASSES


def is_lock_wait(error: BaseException) -> bool:
    """Whether ``error`` may come of single rows that somebody holds: then others can be written meanwhile.

    A narrower question than ``is_away``, which is true of all of these: the whole server may be as slow.
    """
    return getattr(_cause(error), "sqlstate", None) in _LOCK_WAIT_STATES


def may_come_of_one_row(error: BaseException) -> bool:
    """Whether ``error`` may come of a single row where the others can be written at once, and one cannot tell from it.

    A lock was waited for in vain; or only this row has a damaged value, or touches a table to which a right is missing.
    """
    return is_unlike(error) or getattr(_cause(error), "sqlstate", None) == _LOCK_TIMEOUT


def _cause(error: BaseException) -> BaseException:
    """psycopg's error where Django has wrapped it."""
    return error.__cause__ if isinstance(error, DjangoError) and error.__cause__ is not None else error


class Cursor(Protocol):
    """The part of a database cursor that the stages use."""

    def execute(self, query: Any, params: Any = ..., /) -> Any: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...


def storable(text: str) -> str:
    """A stranger's ``text`` as PostgreSQL can keep it: without NUL, half characters replaced."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _plain(value: object) -> object:
    """What msgspec leaves to us: subclasses of the plain types, above all Django's SafeString."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)


def as_json(rows: Sequence[Any] | dict[str, Any]) -> str:
    """``rows`` as the JSON text that ``jsonb_to_recordset`` takes: dictionaries, or dataclasses by their fields.

    Times become RFC 3339, ids their canonical form. Numbers that are not finite become null: keep them out before.
    """
    return _ENCODER.encode(rows).decode()
