"""The application and its one task."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(number: int) -> None:
    """Nothing."""
