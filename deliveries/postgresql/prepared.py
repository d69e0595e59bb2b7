"""Statements that the server keeps planned, on Django's own connection and in its transaction. Used by intake.

Planning a statement that writes to partitioned tables takes longer than running it. Django's own cursors prepare nothing; the
engine's connections prepare by themselves. Behind PgBouncer in transaction mode this needs PgBouncer 1.22 with its
``max_prepared_statements`` set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, connections, transaction


@contextmanager
def prepared() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor for this block, whose statements are prepared when they first come. Raises Django's database errors."""
    own = connections["default"]
    own.close_if_health_check_failed()  # as Django's own cursors do: nothing else may have used it in this request
    own.ensure_connection()
    with own.wrap_database_errors, psycopg.Cursor(own.connection) as cursor:
        yield cursor


@contextmanager
def single_statement() -> Iterator[None]:
    """For a block of one statement, which is a transaction by itself and saves two round trips.

    Within a transaction it gets a savepoint, so that its error ends nothing else.
    """
    if not connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        yield
