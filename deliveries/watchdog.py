"""The watchdog of a worker process: ends it, for its supervisor to start it again, once it can be of no more use.

Started by ``tasks`` when the worker is ready. A worker is deaf when a bell lies in one of its queues, it has a slot free,
and nothing is delivered to it; the process is also of no use when its recorder or its loop has stopped.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from celery import current_app
from celery.worker import state

from deliveries.conf import Timings, timings
from deliveries.doorbell import BROKER_ERRORS, Publisher
from deliveries.threads import going_on

log = structlog.get_logger(__name__)
#: EX_TEMPFAIL of sysexits.h: nothing is wrong that a new process would not mend.
EXIT_CODE = 75
#: Celery reconnects by itself, after waits of up to 30 s; only far beyond them is a worker without a connection stuck.
RECONNECT_SECONDS = 120.0


class Records(Protocol):
    """What the watchdog asks the engine's recorder."""

    @property
    def alive(self) -> bool: ...


class Engine(Protocol):
    """What the watchdog asks of the engine, and tells it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def recorder(self) -> Records: ...

    def in_flight(self) -> int: ...

    def stop_claiming(self) -> None: ...


class Listener:
    """Celery's side of the process. ``consumer`` is the sender of the signal ``worker_ready``."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def queues(self) -> list[str]:
        """The queues that this worker takes from now: without those that an operator has taken from it."""
        return sorted(current_app.amqp.queues.consume_from)

    def slot_free(self) -> bool:
        """Could one more task run?"""
        return max(len(state.reserved_requests), len(state.active_requests)) < int(self._consumer.pool.num_processes)

    def connected(self) -> bool:
        """Does it believe that it has a connection to the broker? False while it reconnects."""
        return self._consumer.connection is not None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw. ``at`` and ``delivered_at`` are monotonic seconds.

    ``oldest``: for each of the worker's queues that is not empty, the bell that has waited longest; None where the broker
    did not answer. ``looped``: what the look before had put on the loop has run.
    """

    at: float
    oldest: Mapping[str, bytes] | None
    slot_free: bool
    connected: bool
    delivered_at: float
    recording: bool = True
    looped: bool = True


class Judge:
    """What a series of looks amounts to. Pure: the only time that it knows is that of the looks."""

    def __init__(self, patience: Timings) -> None:
        self._patience = patience
        self._last: Look | None = None
        self._deaf_since: float | None = None
        self._stuck_since: float | None = None

    def judge(self, look: Look) -> str:
        """Why this process must end, or the empty text."""
        last, self._last = self._last, look
        if last is None or look.at - last.at > self._patience.deaf_seconds / 2:
            # The first look, or the whole process stood still since the last one: nothing seen before counts.
            self._deaf_since = self._stuck_since = None
            return ""
        if not look.recording:
            return "recorder_ended"
        self._stuck_since = _since(self._stuck_since, last.at) if not look.looped else None
        self._deaf_since = _since(self._deaf_since, last.at) if _seems_deaf(look, last) else None
        if self._lasted(self._stuck_since, self._patience.deaf_seconds):
            return "loop_stuck"
        if self._lasted(self._deaf_since, self._deaf_patience(look)):
            return "deaf"
        return ""

    def seconds(self) -> float:
        """For how long it has looked deaf."""
        return self._last.at - self._deaf_since if self._last and self._deaf_since is not None else 0.0

    def _deaf_patience(self, look: Look) -> float:
        return self._patience.deaf_seconds if look.connected else max(RECONNECT_SECONDS, self._patience.deaf_seconds)

    def _lasted(self, since: float | None, seconds: float) -> bool:
        return since is not None and self._last is not None and self._last.at - since >= seconds


def _since(known: float | None, new: float) -> float:
    return new if known is None else known


def _seems_deaf(look: Look, last: Look) -> bool:
    """Did a bell lie there from look to look, with a slot free, and nothing was delivered meanwhile?

    The same bell twice, not any bell: those that others take quickly prove nothing against this worker. A broker that
    does not answer proves nothing either.
    """
    if not (look.slot_free and last.slot_free) or look.delivered_at >= last.at:
        return False
    return any((last.oldest or {}).get(queue) == bell for queue, bell in (look.oldest or {}).items())


class Watchdog:
    """Looks every few seconds from a thread of its own, over a connection of its own."""

    def __init__(self, engine: Engine, listener: Listener) -> None:
        self._engine = engine
        self._listener = listener
        self._publisher = Publisher()
        self._judge = Judge(timings())
        self._delivered_at = time.monotonic()
        self._looped = True
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="chaski-watchdog", daemon=True).start()

    def stand_down(self) -> None:
        """The worker ends anyway."""
        self._over.set()

    def delivered(self) -> None:
        """The broker has handed over a task."""
        self._delivered_at = time.monotonic()

    def _run(self) -> None:
        while not self._over.wait(timings().look_seconds):
            with going_on("watchdog"):
                look = self._look()
                reason = self._judge.judge(look)
                if reason and not self._over.is_set():
                    self._end(reason, look)

    def _look(self) -> Look:
        looped, self._looped = self._looped, False
        self._engine.loop.call_soon_threadsafe(self._pulse)
        at = time.monotonic()
        return Look(
            at=at,
            oldest=self._oldest(),
            slot_free=self._listener.slot_free(),
            connected=self._listener.connected(),
            delivered_at=self._delivered_at,
            recording=self._engine.recorder.alive,
            looped=looped,
        )

    def _pulse(self) -> None:
        self._looped = True

    def _oldest(self) -> dict[str, bytes] | None:
        try:
            found = {queue: self._publisher.oldest(queue) for queue in self._listener.queues()}
        except BROKER_ERRORS:
            self._publisher.close()
            return None
        return {queue: bell for queue, bell in found.items() if bell is not None}

    def _end(self, reason: str, look: Look) -> None:
        """Take nothing more, let what is under way be recorded for a short time, and go."""
        self._engine.stop_claiming()
        log.error(
            "worker_ends_itself",
            reason=reason,
            queues=sorted(look.oldest or ()),
            deaf_seconds=round(self._judge.seconds(), 1),
            since_delivery_seconds=round(look.at - look.delivered_at, 1),
            slot_free=look.slot_free,
            connected=look.connected,
            recording=look.recording,
            looped=look.looped,
            in_flight=self._engine.in_flight(),
        )
        until = time.monotonic() + timings().last_words_seconds
        while self._engine.in_flight() and self._engine.recorder.alive and time.monotonic() < until:
            time.sleep(0.05)
        os._exit(EXIT_CODE)


_watchdog: Watchdog | None = None


def start(engine: Engine, consumer: Any) -> None:
    """Watch over this process from now on. ``consumer`` is the sender of the signal ``worker_ready``."""
    global _watchdog
    _watchdog = Watchdog(engine, Listener(consumer))
    _watchdog.start()


def delivered() -> None:
    """The broker has handed over a task. Cheap: called for each."""
    if _watchdog is not None:
        _watchdog.delivered()


def stand_down() -> None:
    """The worker ends anyway: look no more."""
    if _watchdog is not None:
        _watchdog.stand_down()
