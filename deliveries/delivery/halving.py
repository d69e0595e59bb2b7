"""Writing rows by halves: those that cannot be written do not keep the others waiting. Used by recorder and replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import psycopg

from deliveries.sql import is_not_now, may_come_of_one_row

T = TypeVar("T")
#: So many failures in a row mean that all rows fail alike. More than halving the largest batch down to one row needs.
ALIKE = 16
#: What a row may lead to: the database's refusal, or ours, of a move that the table does not allow, say.
ROW_ERRORS = (psycopg.Error, ValueError)


@dataclass(slots=True)
class Halves(Generic[T]):
    """What became of rows that were written by halves.

    ``refused``: no database will ever take them, each with its error. ``waiting``: to be tried again, those first that
    were not tried alone yet. ``stuck``: the last error that waiting rows led to. ``away``: the one that ended it all.
    """

    written: int = 0
    refused: list[tuple[T, Exception]] = field(default_factory=list)
    waiting: list[T] = field(default_factory=list)
    stuck: Exception | None = None
    away: Exception | None = None


def by_halves(write: Callable[[Sequence[T]], None], pieces: Sequence[Sequence[T]]) -> Halves[T]:
    """``write`` the rows of all pieces, each piece in one transaction; one that fails is halved, without a wait between.

    It ends when the database is away, and when all fail alike: then what is left waits, and no row is blamed.
    """
    found: Halves[T] = Halves()
    left, alone, failures = [*reversed(pieces)], list[T](), 0
    while left and found.away is None and failures < ALIKE:
        rows = left.pop()
        try:
            write(rows)
        except ROW_ERRORS as error:
            if may_come_of_one_row(error):
                found.stuck = error
                failures += 1
            elif is_not_now(error):
                found.away = error
                left.append(rows)
                continue
            if len(rows) > 1:
                middle = len(rows) // 2
                left += [rows[middle:], rows[:middle]]
            elif is_not_now(error):
                alone += rows
            else:
                found.refused.append((rows[0], error))
        else:
            found.written += len(rows)
            failures = 0
    found.waiting = [row for rows in reversed(left) for row in rows] + alone
    return found


def reason(error: Exception) -> str:
    """Why a row was refused, without what it holds."""
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".strip()
