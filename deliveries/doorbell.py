"""Ringing: telling the workers, through the broker, that something is due.

Intake calls ``ring``, which only adds to a bounded set; one thread per process publishes. The relay and the delivery
tasks call ``ring_bare``. A bell that fails, is lost or comes twice loses nothing: the row stays due, and the relay rings.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import redis
import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import KombuError, OperationalError

from chaski.vocabulary import Lane
from deliveries import cache
from deliveries.conf import limits, timings

log = structlog.get_logger(__name__)

#: The version of the arguments of ``deliver.<channel>``: a public contract between two releases side by side.
BELL_VERSION = 1
#: kombu opens a channel after waits of six seconds in all otherwise, and redis-py its connection (``config.broker``).
_AT_ONCE = {"max_retries": 0, "retry": cache.ONCE_MORE}
#: A ringer rests for so long after each message that it rang for: below a hundred a second nobody waits for that.
REST_SECONDS, LONGEST_REST_SECONDS = 0.01, 0.05
#: Lists of Celery itself: the replies to remote control, and what Flower has not read yet.
_INTERNAL = re.compile(r"\.pidbox$|^celeryev\.")
BROKER_ERRORS = (OperationalError, KombuError, redis.RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Bell:
    """What one task is told. ``ids`` empty: a bare bell, "drain what is due". ``oldest`` in seconds of waiting."""

    channel: str
    lane: Lane
    ids: tuple[str, ...] = ()
    backlog: int | None = None
    oldest: float | None = None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the task."""
        return {
            "version": BELL_VERSION,
            "channel": self.channel,
            "lane": str(self.lane),
            "ids": list(self.ids),
            "backlog": self.backlog,
            "oldest": self.oldest,
        }


def _slot(channel: str, lane: Lane) -> str:
    return f"chaski:bell:{channel}:{lane}"


def take_slot(channel: str, lane: Lane) -> bool:
    """May one more bare bell be published? At most one stands unanswered per channel and lane, for fifteen seconds."""
    client = cache.client()
    if client is None:
        return True
    ttl = max(1, int(timings().bell_slot_seconds * 1000))
    return bool(client.set(_slot(channel, lane), "1", nx=True, px=ttl))


def free_slot(channel: str, lane: Lane) -> None:
    """A worker answered. Called before it claims, so that what becomes due meanwhile can ring again."""
    client = cache.client()
    if client is None:
        return
    try:
        client.delete(_slot(channel, lane))
    except redis.RedisError as error:
        log.warning("slot_not_freed", channel=channel, lane=str(lane), error=type(error).__name__)


class Publisher:
    """One connection to the broker with short time-outs. Not thread-safe: one per thread that rings."""

    def __init__(self) -> None:
        self._connection: Any = None

    def publish(self, bell: Bell) -> None:
        """Publish one bell. Raises one of ``BROKER_ERRORS`` within about a second when the broker is away or hung."""
        try:
            current_app.send_task(
                f"deliver.{bell.channel}",
                kwargs=bell.arguments(),
                queue=str(bell.lane),
                connection=self._connect(),
                ignore_result=bool(bell.ids),
                # And no `expires`: a worker whose clock is ahead would drop every bell unheard. Old ones do no harm,
                # and there are few: `queue_bells` is the bound.
            )
        except BROKER_ERRORS:
            self.close()
            raise

    def depth(self, lane: Lane) -> int:
        """Bells that wait in the lane's queue; 0 where the broker cannot tell."""
        client = self._client()
        return int(client.llen(str(lane))) if client is not None else 0

    def oldest(self, queue: str) -> bytes | None:
        """The task that has waited longest in ``queue``; None where it is empty or the broker cannot tell."""
        client = self._client()
        found: bytes | None = client.lindex(queue, -1) if client is not None else None
        return found

    def queues(self) -> dict[str, int]:
        """Every queue in which something waits, with how much; empty where the broker cannot tell."""
        client = self._client()
        if client is None:
            return {}
        # kombu keeps each priority above zero apart, behind a separator; replies and events are no queues of ours.
        names = {key.decode().split("\x06\x16")[0] for key in client.scan_iter(_type="list", count=1000)}
        return {name: int(client.llen(name)) for name in sorted(names) if not _INTERNAL.search(name)}

    def close(self) -> None:
        """Drop the connection; the next publish opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except BROKER_ERRORS as error:
                log.debug("broker_close_failed", error=type(error).__name__)

    def _client(self) -> Any:
        """redis-py's client of the broker; None where the broker is no Redis."""
        return getattr(self._connect().default_channel, "client", None)

    def _connect(self) -> Any:
        if self._connection is None:
            options = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS, **cache.SHORT, **_AT_ONCE}
            self._connection = current_app.connection_for_write(transport_options=options)
        return self._connection


def ring_bare(publisher: Publisher, bell: Bell) -> bool:
    """Publish a bare bell unless one is unanswered or the queue is long. Raises one of ``BROKER_ERRORS``.

    A slot that stands over an empty queue stops nobody: its bell was lost, or lies with a worker that died or hangs.
    """
    waiting = publisher.depth(bell.lane)
    if waiting >= limits().queue_bells or (not take_slot(bell.channel, bell.lane) and waiting):
        return False
    publisher.publish(bell)
    return True


@dataclass(slots=True)
class Doorbell:
    """The ringer of one process: a coalescing set and the thread that empties it. ``ring`` never blocks."""

    _due: dict[tuple[str, Lane], list[str]] = field(default_factory=dict)
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _pid: int = 0

    def ring(self, channel: str, lane: Lane, ids: Iterable[UUID] = ()) -> None:
        """Something is due. Beyond 5,000 waiting ids only the fact is kept that something is."""
        with self._wake:
            self._start()
            known = self._due.setdefault((channel, lane), [])
            if len(known) < limits().ring_backlog:
                known.extend(str(message_id) for message_id in ids)
            self._wake.notify()

    def _start(self) -> None:
        # A forked process inherits the set but not the thread.
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="chaski-ringer", daemon=True)
            self._thread.start()

    def _take(self) -> dict[tuple[str, Lane], list[str]]:
        with self._wake:
            while not self._due:
                self._wake.wait()
            taken, self._due = self._due, {}
            return taken

    def _run(self) -> None:
        publisher = Publisher()
        while True:
            due, begun = self._take(), time.monotonic()
            for (channel, lane), ids in due.items():
                try:
                    publish_ids(publisher, channel, lane, ids)
                except BROKER_ERRORS as error:
                    log.warning("bell_not_rung", channel=channel, lane=str(lane), error=type(error).__name__)
                    time.sleep(0.2)  # a broker that refuses at once must not be asked a thousand times a second
            self._rest(begun + min(LONGEST_REST_SECONDS, REST_SECONDS * sum(len(ids) for ids in due.values())))

    def _rest(self, until: float) -> None:
        """Let what comes close upon a bell share the next one, unless it is urgent: a task costs a worker more than a message."""
        with self._wake:
            self._wake.wait_for(
                lambda: any(lane is Lane.URGENT for _, lane in self._due), max(0.0, until - time.monotonic())
            )


def publish_ids(publisher: Publisher, channel: str, lane: Lane, ids: Sequence[str]) -> None:
    """Ring for ``ids``: by name while the lane is short, so that an operator finds the message in Flower; else bare."""
    size = limits().ring_ids
    if ids and len(ids) <= size * 4 and publisher.depth(lane) < limits().queue_bells:
        for start in range(0, len(ids), size):
            publisher.publish(Bell(channel, lane, tuple(ids[start : start + size])))
        return
    ring_bare(publisher, Bell(channel, lane))


doorbell = Doorbell()
