"""The Celery application: queues, periodic work. Started by `celery -A config`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, task_prerun
from django.db import close_old_connections
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

#: One queue per lane and one for operators' and periodic tasks.
QUEUES = ("urgent", "normal", "bulk", "control")
#: Of workers that are in no hurry, on the scale of nice(1).
NICENESS = 10
#: Renamed or given up: the old name -> the queue in its place, whose workers drain it. Publishers of the release before
#: still fill it, so a name stays here for one release at least.
RETIRED_QUEUES: dict[str, str] = {}

for scheme in ("redis", "rediss", "redis+socket"):
    TRANSPORT_ALIASES[scheme] = "config.broker:Transport"

app = Celery("chaski")
app.config_from_object("django.conf:settings", namespace="CELERY")
# No named exchange: after the broker is emptied a publish through one returns an id and stores nothing.
app.conf.task_queues = [Queue(name) for name in (*QUEUES, *RETIRED_QUEUES)]
app.conf.beat_schedule = {
    "maintain": {"task": "chaski.maintain", "schedule": 60.0, "options": {"queue": "control", "expires": 55}},
    "backend-cleanup": {"task": "celery.backend_cleanup", "schedule": 3600.0, "options": {"queue": "control"}},
}
app.autodiscover_tasks(["deliveries"])


@task_prerun.connect
def _leave_broken_connections(**_: Any) -> None:
    """Celery keeps a thread's connection for a thousand tasks, broken or not (CELERY_DB_REUSE_MAX)."""
    close_old_connections()


@celeryd_after_setup.connect
def _give_way(instance: Any, **_: Any) -> None:
    """A worker that takes nothing urgent lets those who do, and the web, have a busy core first."""
    if "urgent" not in instance.app.amqp.queues.consume_from:
        os.nice(NICENESS)


@celeryd_after_setup.connect
def _drain_retired_queues(instance: Any, **_: Any) -> None:
    """Whatever `-Q` says: who takes from a queue takes from the one that it replaced."""
    queues = instance.app.amqp.queues
    for name, successor in RETIRED_QUEUES.items():
        if successor in queues.consume_from:
            queues.select_add(queues[name])
