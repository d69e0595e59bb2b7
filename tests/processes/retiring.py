"""Our Celery application with a retired queue, as a release that renamed one has it: `celery -A tests.processes.retiring`."""

from __future__ import annotations

from kombu import Queue

from config import celery

celery.RETIRED_QUEUES["slow"] = "bulk"
celery.app.conf.task_queues = [*celery.app.conf.task_queues, Queue("slow")]
app = celery.app
