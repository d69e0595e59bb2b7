"""The relay: rings for what is due and nobody takes, sweeps, applies receipts, makes callbacks. Any number may run.

Started by `manage.py relay`. It decides nothing alone: every job takes its rows under SKIP LOCKED and every bare bell
its slot, so that two relays do the work of one, and none of them for minutes costs delay only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import redis
import structlog

from chaski.vocabulary import Lane
from deliveries import callbacks, heartbeat, receipts
from deliveries.conf import timings
from deliveries.delivery import sweep
from deliveries.delivery.database import EngineConnection
from deliveries.doorbell import BROKER_ERRORS, Bell, Publisher, ring_bare
from deliveries.models.messages import LANES
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

#: Channels and lanes with something due that nobody has taken for half a second: direct bells come first. The count is
#: capped, it is for people.
DUE = """
WITH RECURSIVE pair AS (
    (SELECT channel, lane FROM pending WHERE NOT blocked ORDER BY channel, lane LIMIT 1)
    UNION ALL
    SELECT x.channel, x.lane FROM pair CROSS JOIN LATERAL (
        SELECT p.channel, p.lane FROM pending p WHERE NOT p.blocked AND (p.channel, p.lane) > (pair.channel, pair.lane)
        ORDER BY p.channel, p.lane LIMIT 1) x
), service AS (
    SELECT pair.channel, pair.lane, s.service_id FROM pair CROSS JOIN LATERAL (
        WITH RECURSIVE turn AS (
            (SELECT service_id FROM pending p WHERE NOT p.blocked AND p.channel = pair.channel AND p.lane = pair.lane
             ORDER BY service_id LIMIT 1)
            UNION ALL
            SELECT x.service_id FROM turn CROSS JOIN LATERAL (
                SELECT p.service_id FROM pending p WHERE NOT p.blocked AND p.channel = pair.channel
                    AND p.lane = pair.lane AND p.service_id > turn.service_id ORDER BY p.service_id LIMIT 1) x
        ) SELECT service_id FROM turn) s
), waiting AS (
    SELECT s.channel, s.lane, d.due_at FROM service s CROSS JOIN LATERAL (
        SELECT p.due_at FROM pending p WHERE NOT p.blocked AND p.channel = s.channel AND p.lane = s.lane
            AND p.service_id = s.service_id AND p.due_at <= chaski_now() AND p.lease_until IS NULL
        ORDER BY p.due_at LIMIT 1000) d
)
SELECT channel, lane, count(*), extract(epoch FROM chaski_now() - min(due_at))::float8
FROM waiting GROUP BY channel, lane HAVING min(due_at) < chaski_now() - make_interval(secs => %(patience)s)
"""


@dataclass(slots=True)
class Relay:
    """One relay process. ``tick`` does one round; ``run`` does rounds until it is told to stop."""

    stopping: threading.Event = field(default_factory=threading.Event)
    _connection: EngineConnection = field(default_factory=EngineConnection)
    _publisher: Publisher = field(default_factory=Publisher)
    _swept_at: float = float("-inf")
    _beat_at: float = float("-inf")
    _name: str = field(default_factory=lambda: heartbeat.process_name("relay"))

    def run(self) -> None:
        """Tick once a second until ``stopping`` is set."""
        while not self.stopping.is_set():
            started = time.monotonic()
            self.tick()
            self.stopping.wait(max(0.0, timings().relay_tick_seconds - (time.monotonic() - started)))

    def tick(self) -> None:
        """One round. What fails is logged and left to the next one: the rows stay as they are."""
        now = time.monotonic()
        if now - self._swept_at >= timings().sweep_seconds:
            self._swept_at = now
            self._job("end_leases", sweep.end_leases)
            self._job("expire", sweep.expire)
            self._job("unblock", sweep.unblock)
        self._job("receipts", receipts.apply)
        self._job("callbacks", callbacks.make)
        self._ring()
        if now - self._beat_at >= heartbeat.INTERVAL_SECONDS:
            self._beat_at = now
            heartbeat.beat(self._connection, self._name, "relay")

    def _job(self, name: str, job: Callable[[Cursor], int]) -> None:
        """Run ``job`` in a transaction of its own, again while there is more, for at most ten rounds."""
        try:
            for _ in range(10):
                with self._connection.transaction() as cursor:
                    done = job(cursor)
                if done:
                    log.info("relay_did", job=name, rows=done)
                if done < 100:
                    return
        except psycopg.Error as error:
            log.warning("relay_job_failed", job=name, error=type(error).__name__, reason=str(error)[:200])

    def _ring(self) -> None:
        try:
            for bell in self.due():
                if ring_bare(self._publisher, bell):
                    log.info("relay_rang", channel=bell.channel, lane=str(bell.lane), backlog=bell.backlog)
        except psycopg.Error as error:
            log.warning("relay_job_failed", job="ring", error=type(error).__name__, reason=str(error)[:200])
        except (*BROKER_ERRORS, redis.RedisError) as error:
            log.warning("relay_cannot_ring", error=type(error).__name__)

    def due(self) -> list[Bell]:
        """A bare bell for every channel and lane with something due that nobody takes."""
        with self._connection.transaction() as cursor:
            cursor.execute(DUE, {"patience": timings().relay_tick_seconds / 2})
            rows = cursor.fetchall()
        return [Bell(row[0], Lane(LANES[row[1]]), backlog=row[2], oldest=round(row[3], 1)) for row in rows]
