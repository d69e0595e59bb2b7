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
from django.db import connection


@contextmanager
def prepared() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor for this block, whose statements are prepared when they first come. Raises Django's database errors."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        yield cursor
