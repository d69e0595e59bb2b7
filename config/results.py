"""Where task results are kept: django-celery-results, without its failures. Celery's setting names it.

A result that the database cannot take is lost and nothing else is: what a task did stands on the rows. Left to itself
the failure would break the repeat of the very task that the database has just failed, with two tracebacks each time.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.db import Error as DatabaseError
from django.db import connection
from django_celery_results.backends.database import DatabaseBackend

log = structlog.get_logger(__name__)


class Results(DatabaseBackend):  # type: ignore[misc]
    """The results' table; a database that is away costs a line in the log."""

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Keep ``result``, if that is possible."""
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except DatabaseError as error:
            connection.close()  # Celery keeps the thread's connection; the next task needs a new one
            log.warning("task_result_not_kept", task_id=task_id, state=state, error=type(error).__name__)
            return result
