"""The backend itself, under the name where Django looks for it."""

from __future__ import annotations

from typing import Any, Self

from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor

from deliveries.postgresql.bounded import BoundedConnection

#: A connection that was idle is asked for a sign of life before it is used (CONN_HEALTH_CHECKS); it answers at once or
#: is replaced.
PROBE_SECONDS = 3.0
FRESH_SECONDS = 1.0


class SchemaEditor(DatabaseSchemaEditor):
    """Migrations may take as long as the server lets them."""

    def __enter__(self) -> Self:
        self.connection.ensure_connection()
        self._unhurried = self.connection.connection.within(None)
        self._unhurried.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._unhurried.__exit__(None, None, None)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper around ``BoundedConnection``. ``answer_seconds`` is one of the OPTIONS of the database."""

    Database = BoundedConnection  # type: ignore[assignment]  # as good as the module: it connects and has the exceptions
    SchemaEditorClass = SchemaEditor

    def is_usable(self) -> bool:
        """Whether the server answers on this connection, known within ``PROBE_SECONDS``.

        Not asked where it did a moment ago: a busy web process would ask before every request.
        """
        if self.connection is None:
            return False
        if self.connection.was_well(FRESH_SECONDS):
            return True
        with self.connection.within(PROBE_SECONDS):
            return bool(super().is_usable())
