"""The delivery engine's own connections. One owner thread at a time each; never held during a provider call.

Celery closes Django's connection after every task, which would cost a reconnection for each; the engine keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import psycopg
from django.db import connections

from deliveries.conf import timings
from deliveries.delivery.moments import Moment
from deliveries.postgresql.bounded import BoundedConnection
from deliveries.sql import Cursor, is_not_now

#: A plan that scans a whole partition is never right here; cached plans of an empty, analysed one would choose it. Nor is one
#: that reads all of a backlog by a bitmap and sorts it to take 250: from some hundred thousand rows on, how the statistics
#: fell decided between that, half a second, and the index that has them in order.
SESSION = (
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET statement_timeout = '5s';"
    " SET application_name = 'chaski-engine'"
)


class EngineConnection:
    """A connection that opens itself when it is needed and drops itself when it breaks. Thread-safe by a lock."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._connection: BoundedConnection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor inside one transaction, committed at the end. Raises ``psycopg.Error``."""
        with self._guarded() as connection, connection.transaction(), connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def statements(self) -> Iterator[Cursor]:
        """A cursor whose every statement is a transaction of its own: one journey to the server instead of three.

        Raises ``psycopg.Error``; what was executed before stays.
        """
        with self._guarded() as connection, connection.cursor() as cursor:
            yield cursor

    def close(self) -> None:
        """Close; the next transaction opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextmanager
    def _guarded(self) -> Iterator[BoundedConnection]:
        with self._lock:
            try:
                yield self._open()
            except psycopg.Error as error:
                if is_not_now(error) and not isinstance(error, psycopg.errors.LockNotAvailable):
                    self.close()  # a server that became read-only, say, may have a successor, a new session another schema
                raise

    def _open(self) -> BoundedConnection:
        if self._connection is None or self._connection.closed:
            parameters = connections["default"].get_connection_params()
            for name in ("cursor_factory", "context", "prepare_threshold", "server_side_binding"):
                parameters.pop(name, None)
            parameters["answer_seconds"] = min(timings().answer_seconds, parameters.get("answer_seconds") or math.inf)
            self._connection = BoundedConnection.connect(**parameters, autocommit=True)
            self._connection.adapters.register_loader("timestamptz", Moment)
            self._connection.execute(SESSION)
        return self._connection
