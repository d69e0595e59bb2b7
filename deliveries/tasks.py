"""The Celery tasks: thin shells around the engine and the relay's jobs.

Their names and arguments are a public contract between two releases that run side by side: add arguments with defaults,
never rename or remove one; `tasks.lock.json` and its test hold that. Unknown arguments of a newer release are taken and
left alone, and ``config.consumer`` notes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import redis
import structlog
from celery import Task, current_app, shared_task
from celery.signals import (
    task_failure,
    task_received,
    task_rejected,
    task_retry,
    task_unknown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from django.db import Error as DatabaseError

from channels.media import MEDIA
from channels.registry import providers
from chaski.vocabulary import Lane
from deliveries import heartbeat, maintenance, watchdog
from deliveries.conf import timings
from deliveries.delivery import interpreter, reconcile
from deliveries.delivery.engine import CLOSE_SECONDS, engine
from deliveries.doorbell import BELL_VERSION, free_slot
from deliveries.sql import AWAY_ERRORS

log = structlog.get_logger(__name__)

#: Failures of our own infrastructure. A provider's failures are data on the row, never a Celery retry.
INFRASTRUCTURE = (*AWAY_ERRORS, DatabaseError, redis.RedisError)
AUTORETRY: dict[str, Any] = {
    "autoretry_for": INFRASTRUCTURE,
    "retry_backoff": True,
    "retry_backoff_max": 30,
    "retry_jitter": True,
    "max_retries": 5,
    # Expected: Celery keeps the traceback with the result and logs none.
    "throws": INFRASTRUCTURE,
}


def deliver(
    self: Task[Any, Any],
    *,
    channel: str,
    lane: str = "normal",
    ids: Sequence[str] = (),
    version: int = 1,
    backlog: int | None = None,
    oldest: float | None = None,
    **unknown: Any,
) -> dict[str, int]:
    """Send what is due on ``channel``. Whoever rings can at most make a queued message go out: the rows decide."""
    wanted = _lane(lane)
    if version > BELL_VERSION:
        ids = ()  # whatever they mean there; what is due here is due
    if not ids:
        # Before the claim: what becomes due from now on may ring again.
        free_slot(channel, wanted)
    tally = engine().drain(channel, wanted, ids, self.request.id or "")
    return asdict(tally)


def _lane(name: str) -> Lane:
    """The lane of this name. One of another release is taken for the laziest, whose bells take the more urgent first."""
    return Lane(name) if name in set(Lane) else Lane.BULK


for _channel in MEDIA:
    _as_task: Callable[[Any], Any] = current_app.task(
        bind=True, name=f"deliver.{_channel}", version=BELL_VERSION, **AUTORETRY
    )
    _as_task(deliver)


@shared_task(name="chaski.maintain", ignore_result=False, **AUTORETRY)
def maintain(**unknown: Any) -> dict[str, int]:
    """Periodic upkeep, once per minute however many beats run."""
    return maintenance.run()


@task_retry.connect
def _tell_retry(sender: Any = None, reason: Any = None, **_: Any) -> None:
    error = getattr(reason, "exc", None)
    log.warning("task_comes_again", task=getattr(sender, "name", ""), error=type(error).__name__)


@task_failure.connect
def _tell_failure(sender: Any = None, exception: Any = None, **_: Any) -> None:
    if isinstance(exception, INFRASTRUCTURE):
        log.warning("task_gave_up", task=getattr(sender, "name", ""), error=type(exception).__name__)


@worker_ready.connect
def _start(sender: Any = None, **_: Any) -> None:
    try:
        _start_all(sender)
    except Exception:  # Celery would log it and take tasks all the same, with nobody to record them or to watch
        log.exception("worker_not_started")
        os._exit(watchdog.EXIT_CODE)


def _start_all(sender: Any) -> None:
    providers()
    running = engine(str(getattr(sender, "hostname", "worker")))
    heartbeat.start("worker", running, current_app.amqp.queues.consume_from)
    reconcile.start(running.loop)
    watchdog.start(running, sender)
    interpreter.prepare()


@task_received.connect
@task_unknown.connect
@task_rejected.connect
def _delivered(**_: Any) -> None:
    watchdog.delivered()


@worker_shutting_down.connect
def _stop_claiming(**_: Any) -> None:
    watchdog.stand_down()
    reconcile.stop()
    engine().stop_claiming()
    heartbeat.end_process_after(max(timings().lease(cls) for cls in providers().values()))


@worker_shutdown.connect
def _finish(**_: Any) -> None:
    reconcile.finish(CLOSE_SECONDS)
    engine().finish(max(timings().lease(cls) for cls in providers().values()))
