"""django-celery-results, except that a result which cannot be stored fails no task. Named by ``CELERY_RESULT_BACKEND``.

Celery 5.7 stores a failure a second time when storing it failed, and lets the second error out of the thread: the task is
then never acknowledged and keeps its place among the worker's prefetched ones for ever. After as many as there are threads
the worker hears nothing any more. A result is for looking at; what became of the messages is on their rows.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.db import Error, close_old_connections, connection
from django_celery_results import backends

log = structlog.get_logger(__name__)


class DatabaseBackend(backends.DatabaseBackend):  # type: ignore[misc]
    """Results in PostgreSQL, if it takes them."""

    def _store_result(self, task_id: str, result: Any, status: str, *args: Any, **kwargs: Any) -> Any:
        """Store ``result``, or log that it is not kept. Never raises an error of the database."""
        try:
            close_old_connections()  # Celery keeps a thread's connection for a thousand tasks, broken or not
            return super()._store_result(task_id, result, status, *args, **kwargs)
        except Error as error:
            connection.close()
            log.warning("task_result_not_kept", task_id=task_id, status=status, error=type(error).__name__)
            return result
