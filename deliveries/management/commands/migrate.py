"""`manage.py migrate`: Django's, made safe on a live database. Found before Django's own, so that nobody has to think of it.

A migration that waits for a lock makes everybody who comes after it wait as well, however short its own work is. So it gives up
after a second, keeps nothing, and tries again. One without a transaction (an index made CONCURRENTLY) holds up nobody: it
may wait and take as long as it needs.
"""

from __future__ import annotations

import random
import time
from typing import Any

import psycopg
from django.contrib.postgres.operations import AddIndexConcurrently
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.migrate import Command as Base
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

LONGEST_PAUSE_SECONDS = 5.0
#: What CREATE INDEX CONCURRENTLY leaves behind when it is cut off.
INVALID = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = %s AND NOT i.indisvalid"
)


class Command(Base):
    """Django's command with time limits and further attempts."""

    help = (
        "Bring the schema up to date. A migration gives up rather than let others wait behind it, and is tried again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--lock-timeout", type=float, default=1.0, metavar="SECONDS", help="wait so long for a lock, then try again"
        )
        parser.add_argument("--attempts", type=int, default=60, metavar="NUMBER", help="try so often in all")

    def handle(self, *args: Any, **options: Any) -> None:
        self._connection: BaseDatabaseWrapper = connections[options["database"]]
        self._lock_timeout: float = options["lock_timeout"]
        if self._lock_timeout <= 0 or options["attempts"] <= 0:
            raise CommandError("--lock-timeout and --attempts must be above 0")
        try:
            self._insist(*args, **options)
        finally:
            self._set(lock_timeout="DEFAULT", statement_timeout="DEFAULT")

    def _insist(self, *args: Any, **options: Any) -> None:
        attempts: int = options["attempts"]
        for attempt in range(1, attempts + 1):
            try:
                super().handle(*args, **options)
                return
            except OperationalError as error:
                if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                    raise
                if attempt == attempts:
                    raise CommandError(_given_up(attempts, self._lock_timeout)) from error
            pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(attempt, 5))  # noqa: S311
            self.stderr.write(f"\n  A lock was not free; nothing was changed. Attempt {attempt + 1} in {pause:.1f} s.")
            time.sleep(pause)

    def migration_progress_callback(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:  # noqa: FBT001, FBT002
        """Before each migration: its time limits, and what an earlier run of it left behind."""
        if migration is not None and action in ("apply_start", "unapply_start"):
            if migration.atomic:
                self._set(lock_timeout=f"'{int(self._lock_timeout * 1000)}ms'", statement_timeout="DEFAULT")
            else:
                self._set(lock_timeout="0", statement_timeout="0")
                self._drop_invalid_indexes(migration)
        super().migration_progress_callback(action, migration, fake)

    def _set(self, **values: str) -> None:
        if self._connection.connection is None or self._connection.vendor != "postgresql":
            return
        with self._connection.cursor() as cursor:
            for name, value in values.items():
                cursor.execute(f"SET {name} TO {value}")

    def _drop_invalid_indexes(self, migration: Migration) -> None:
        with self._connection.cursor() as cursor:
            for operation in migration.operations:
                if isinstance(operation, AddIndexConcurrently):
                    cursor.execute(INVALID, [operation.index.name])
                    if cursor.fetchone():
                        cursor.execute(
                            f"DROP INDEX CONCURRENTLY {self._connection.ops.quote_name(operation.index.name)}"
                        )


def _given_up(attempts: int, seconds: float) -> str:
    return (
        f"the lock was not free within {seconds:g} s, {attempts} times; nothing of this migration was kept. Look in"
        " pg_stat_activity for a transaction that has been open for long, end it, and run `manage.py migrate` again"
    )
