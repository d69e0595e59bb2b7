"""Parking: tasks that this release cannot take as they are, kept in a table to be seen, published again or discarded.

Called by the worker's consumer (``config.consumer``) and, for what people decide about them, by `manage.py parked`. Celery
itself would drop such tasks with a line in the log. A bell only hints, so beside being parked it has its channel looked at.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
import structlog
from celery import current_app
from django.db import transaction

from channels.media import MEDIA
from chaski.vocabulary import Lane
from deliveries.acts import audit
from deliveries.delivery.database import EngineConnection
from deliveries.doorbell import doorbell
from deliveries.models.parked import NOTES, Parked, Reason
from deliveries.sql import Cursor, storable
from deliveries.threads import going_on

log = structlog.get_logger(__name__)

PAYLOAD_CHARS = 8_000
WORD_CHARS = 200
#: Beyond so many rows only the counts of each reason grow.
MOST_ROWS = 1_000
#: While the database cannot keep it, a task is held so long and then given back to its queue.
HOLD_SECONDS = 5.0
#: Each reason is logged so often at most.
SAY_SECONDS = 10.0

AGAIN = """
UPDATE parked SET times = times + %(times)s, last_at = chaski_now(), task_id = %(task_id)s
WHERE fingerprint = %(fingerprint)s RETURNING 1
"""
FULL = "SELECT count(*) >= %(most)s FROM (SELECT 1 FROM parked LIMIT %(most)s) AS held"
PARK = """
INSERT INTO parked (fingerprint, queue, name, task_id, reason, detail, payload, payload_chars, times, first_at, last_at)
VALUES (%(fingerprint)s, %(queue)s, %(name)s, %(task_id)s, %(reason)s, %(detail)s, %(payload)s, %(payload_chars)s, %(times)s,
    chaski_now(), chaski_now())
ON CONFLICT (fingerprint) DO UPDATE
SET times = parked.times + excluded.times, last_at = excluded.last_at, task_id = excluded.task_id
"""


class NotPublishable(ValueError):
    """A parked task that cannot be published again; the text says why."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A task as it came from the broker, and why it is parked. ``payload`` is its body; ``detail`` holds no values."""

    reason: Reason
    queue: str
    name: str = ""
    task_id: str = ""
    payload: str = ""
    detail: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for what is counted on one row: notes by what they say, the rest by their whole payload."""
        told = "" if self.reason in NOTES else self.payload
        return _digest(self.reason, self.queue, self.name, self.detail, told)

    @property
    def counted_only(self) -> Stray:
        """What remains of it where the table is full."""
        return Stray(self.reason, "", detail=f"beyond {MOST_ROWS:,} rows tasks are counted and their payloads not kept")

    @property
    def channel(self) -> str:
        """The channel that it rings for; empty where it is no bell, or one of a channel that is not known here."""
        kind, _, channel = self.name.partition(".")
        return channel if kind == "deliver" and channel in MEDIA else ""

    def row(self, times: int) -> dict[str, Any]:
        """The parameters of the statements."""
        payload = storable(self.payload)
        return {
            "fingerprint": self.fingerprint,
            "reason": str(self.reason),
            "queue": storable(self.queue)[:WORD_CHARS],
            "name": storable(self.name)[:WORD_CHARS],
            "task_id": storable(self.task_id)[:WORD_CHARS],
            "detail": storable(self.detail)[:WORD_CHARS],
            "payload": payload[:PAYLOAD_CHARS],
            "payload_chars": len(payload),
            "times": times,
        }


def _digest(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def park(cursor: Cursor, strays: Iterable[Stray]) -> None:
    """Write ``strays`` down, in an order in which two processes do not wait for each other in a circle."""
    counted: dict[str, tuple[Stray, int]] = {}
    for stray in strays:
        counted[stray.fingerprint] = (stray, counted.get(stray.fingerprint, (stray, 0))[1] + 1)
    cursor.execute(FULL, {"most": MOST_ROWS})
    full = cursor.fetchone()[0]
    for _, (stray, times) in sorted(counted.items()):
        if full:
            cursor.execute(AGAIN, stray.row(times))
            if cursor.fetchone():
                continue
            stray = stray.counted_only
        cursor.execute(PARK, stray.row(times))


@dataclass(slots=True)
class Lot:
    """Parks for one worker process on a thread of its own, so that the consumer never waits for the database.

    What is told to it is written in order; ``after`` is called from that thread with whether it was. What could not be
    written is held for ``HOLD_SECONDS`` first, so that giving it back does not become a busy loop.
    """

    _waiting: SimpleQueue[tuple[Stray, Callable[[bool], None]]] = field(default_factory=SimpleQueue)
    _connection: EngineConnection = field(default_factory=EngineConnection)
    _said_at: dict[Reason, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def put(self, stray: Stray, after: Callable[[bool], None]) -> None:
        """Park ``stray`` and call ``after``. Never blocks."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="chaski-parking", daemon=True)
                self._thread.start()
        self._waiting.put((stray, after))

    def _run(self) -> None:
        while True:
            taken = [self._waiting.get(), *self._rest()]
            written = False
            with going_on("parking"):
                written = self._write([stray for stray, _ in taken])
            if not written:
                time.sleep(HOLD_SECONDS)
            for stray, after in taken:
                with going_on("parking"):
                    self._finish(stray, after, written=written)

    @staticmethod
    def _finish(stray: Stray, after: Callable[[bool], None], *, written: bool) -> None:
        after(written)
        if written and stray.channel and stray.reason not in NOTES:
            # In the laziest lane: its bell takes what is more urgent first.
            doorbell.ring(stray.channel, Lane.BULK)

    def _rest(self) -> list[tuple[Stray, Callable[[bool], None]]]:
        found: list[tuple[Stray, Callable[[bool], None]]] = []
        try:
            while len(found) < MOST_ROWS:
                found.append(self._waiting.get_nowait())
        except Empty:
            pass
        return found

    def _write(self, strays: Sequence[Stray]) -> bool:
        try:
            with self._connection.transaction() as cursor:
                park(cursor, strays)
        except psycopg.Error as error:
            log.warning("tasks_not_parked", tasks=len(strays), error=type(error).__name__, held_seconds=HOLD_SECONDS)
            return False
        for stray in strays:
            self._say(stray)
        return True

    def _say(self, stray: Stray) -> None:
        if time.monotonic() - self._said_at.get(stray.reason, float("-inf")) > SAY_SECONDS:
            self._said_at[stray.reason] = time.monotonic()
            log.warning(
                "task_parked",
                reason=str(stray.reason),
                task=stray.name[:WORD_CHARS],
                task_id=stray.task_id[:WORD_CHARS],
            )


def publish_again(parked: Parked, *, actor: str, reason: str) -> None:
    """Put a parked task back on its queue and forget it. Raises ``NotPublishable`` and ``doorbell.BROKER_ERRORS``."""
    args, kwargs = _arguments(parked)
    current_app.loader.import_default_modules()
    if parked.name not in current_app.tasks:
        raise NotPublishable(f"there is no task {parked.name or 'without a name'} in this release either")
    queue = parked.queue if parked.queue in current_app.amqp.queues else str(current_app.conf.task_default_queue)
    with transaction.atomic():
        _forget(parked, "parked_publish", actor, reason)
        current_app.send_task(parked.name, args=args, kwargs=kwargs, queue=queue)


def _arguments(parked: Parked) -> tuple[list[Any], dict[str, Any]]:
    if not parked.whole or not parked.payload:
        raise NotPublishable(f"only {len(parked.payload):,} of its {parked.payload_chars:,} characters were kept")
    try:
        args, kwargs, _ = json.loads(parked.payload)
    except (ValueError, TypeError) as error:
        raise NotPublishable(f"its payload is not what a task carries: {error}") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise NotPublishable("its payload is not what a task carries: a list and an object of arguments")
    return args, kwargs


def discard(parked: Parked, *, actor: str, reason: str) -> None:
    """Forget a parked task. The audit keeps that it was there."""
    with transaction.atomic():
        _forget(parked, "parked_discard", actor, reason)


def _forget(parked: Parked, action: str, actor: str, reason: str) -> None:
    detail = {"name": parked.name, "task_id": parked.task_id, "why": parked.reason, "times": parked.times}
    audit(actor, action, f"parked:{parked.pk}", reason, detail)
    parked.delete()
