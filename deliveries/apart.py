"""What cannot be written is set apart, so that it keeps nothing else from being written. Used by the sweep and by receipts.

A row that no repeat will ever write, whose history was mended by hand, say, would else fail its whole batch at every tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import psycopg
import psycopg.errors
import structlog
from django.db import Error as DjangoError

from deliveries.sql import Cursor, is_not_now

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: For so long a row is left out that could not be written, and so many are remembered; of more, the oldest are tried sooner.
SECONDS = 300.0
MOST = 5_000


def write(cursor: Cursor, rows: Sequence[T], act: Callable[[Sequence[T]], object]) -> list[tuple[T, Exception]]:
    """Do ``act`` with all of ``rows``, or by halves with all that it can be done with; the others, each with its error.

    Runs in the caller's transaction, in which an ``act`` that failed leaves no trace and no lock. Raises what says nothing
    of the rows: the database is away, or not what this code expects.
    """
    cursor.execute("SAVEPOINT apart")
    try:
        act(rows)
    # a word that the code does not know, which only a person with SQL can have written, is a ValueError
    except (psycopg.Error, DjangoError, ValueError) as error:
        if not _blames_a_row(error):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT apart")
        cursor.execute("RELEASE SAVEPOINT apart")
        if len(rows) == 1:
            return [(rows[0], error)]
        middle = len(rows) // 2
        return [*write(cursor, rows[:middle], act), *write(cursor, rows[middle:], act)]
    cursor.execute("RELEASE SAVEPOINT apart")
    return []


class Apart:
    """The rows that one job could not write a moment ago, by their message ids; in memory alone, of one process."""

    def __init__(self, event: str) -> None:
        """``event`` is what the log calls it."""
        self._event = event
        self._since: dict[UUID, float] = {}

    def ids(self) -> list[UUID]:
        """Those to leave out now, the oldest first."""
        over = time.monotonic() - SECONDS
        self._since = {each: since for each, since in self._since.items() if since > over}
        return list(self._since)

    def write(
        self, cursor: Cursor, rows: Sequence[T], act: Callable[[Sequence[T]], object], id_of: Callable[[T], UUID]
    ) -> None:
        """As the function ``write``; what it could not write is logged with its id, and left out for some minutes."""
        for row, error in write(cursor, rows, act) if rows else ():
            told(self._event, id_of(row), error)
            self._since.pop(id_of(row), None)
            self._since[id_of(row)] = time.monotonic()
        for oldest in list(self._since)[:-MOST]:
            del self._since[oldest]


def told(event: str, message_id: UUID, error: Exception) -> None:
    """Log what could not be written: ids and names, not the server's text, which may quote the row."""
    cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
    constraint = cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None
    log.error(event, message_id=str(message_id), error=type(cause).__name__, constraint=constraint or "")


def _blames_a_row(error: Exception) -> bool:
    # Internal errors are those of a damaged row here: a plan or a catalogue would fail for all of them, one by one.
    state = getattr(error.__cause__ or error, "sqlstate", None) or ""
    return state.startswith("XX") or not is_not_now(error)
