"""The relay: rings for what is due and nobody takes, sweeps, applies receipts, makes callbacks. Any number may run.

Started by `manage.py relay`. It decides nothing alone: every job takes its rows under SKIP LOCKED and every bare bell
its slot, so that two relays do the work of one, and none of them for minutes costs delay only. In a database that was restored
from a backup it only applies receipts, until an operator arms it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg
import structlog
from django.db import Error as DatabaseError
from django.db import close_old_connections

from chaski.vocabulary import Lane
from deliveries import callbacks, heartbeat, receipts, replies
from deliveries.conf import timings
from deliveries.delivery import leases, reroute, sweep
from deliveries.delivery.blocked_heads import BlockedHeads
from deliveries.delivery.crashes import crash_point
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.heads import Heads
from deliveries.doorbell import BROKER_ERRORS, Bell, Publisher, ring_bare
from deliveries.lineage import guard, unless_held
from deliveries.models.messages import LANES
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
#: The same complaint of the same job is heard so often at most.
COMPLAIN_SECONDS = 10.0
#: Receipts that are applied together, and the pause in which they gather while they come.
PAGE, RECEIPTS_REST_SECONDS = 500, 0.1

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
    _heads: Heads = field(default_factory=Heads)
    _blocked_heads: BlockedHeads = field(default_factory=BlockedHeads)
    _swept_at: float = float("-inf")
    _beat_at: float = float("-inf")
    _complained: dict[tuple[str, str], float] = field(default_factory=dict)
    _name: str = field(default_factory=lambda: heartbeat.process_name("relay"))

    def run(self) -> None:
        """Tick once a second until ``stopping`` is set."""
        guard()  # asks the lineage's witnesses, before there is a transaction
        beside = [
            threading.Thread(target=self._watch, name="chaski-watch", daemon=True),
            threading.Thread(target=self._apply_receipts, name="chaski-receipts", daemon=True),
        ]
        for thread in beside:
            thread.start()
        while not self.stopping.is_set():
            started = time.monotonic()
            self.tick()
            self.stopping.wait(max(0.0, timings().relay_tick_seconds - (time.monotonic() - started)))
        for thread in beside:
            thread.join(timings().answer_seconds)
        self.close()

    def _watch(self) -> None:
        """Leave the mark that the database takes writes, however long a tick takes: its absence means an outage."""
        connection = EngineConnection()
        while not self.stopping.wait(timings().sweep_seconds / 2):
            with self._kept_apart("watch"), connection.transaction() as cursor:
                leases.watch(cursor)
        connection.close()

    def _apply_receipts(self) -> None:
        """Apply receipts as they come, by large batches while many come: thousands a second are more than fit into a tick."""
        connection = EngineConnection()
        rest = timings().relay_tick_seconds
        while not self.stopping.wait(rest):
            rest = min(RECEIPTS_REST_SECONDS, timings().relay_tick_seconds)
            if not self.apply_receipts(connection):
                rest = timings().relay_tick_seconds
        connection.close()

    def apply_receipts(self, connection: EngineConnection) -> int:
        """Apply the receipts that wait, until a look finds less than a page of them; how many were looked at."""
        seen = 0
        with self._kept_apart("receipts"):
            while not self.stopping.is_set():
                self._apply_replies(connection)  # before each page: among them is who asks to be left alone
                page = self._once("receipts", lambda cursor: receipts.apply(cursor, PAGE).seen, connection)
                seen += page
                if page < PAGE:
                    break
        if seen:
            log.info("relay_did", job="receipts", rows=seen)
        return seen

    def _apply_replies(self, connection: EngineConnection) -> None:
        with self._kept_apart("replies"):
            while self._once("replies", replies.apply, connection) == replies.PAGE:
                pass

    def close(self) -> None:
        """Give back both connections."""
        self._connection.close()
        self._publisher.close()

    def tick(self) -> None:
        """One round. What fails is logged and left to the next one: the rows stay as they are."""
        now = time.monotonic()
        if now - self._swept_at >= timings().sweep_seconds:
            self._swept_at = now
            with self._kept_apart("watch"):
                self._once("watch", leases.watch, self._connection)
            self._job("end_leases", unless_held(sweep.end_leases))
            self._job("expire", unless_held(sweep.expire))
            self._job("reroute", unless_held(reroute.look))
            self._job("blocked_heads", unless_held(self._blocked_heads.look))
            self._job("unblock", unless_held(self._heads.unblock))
        self._ring()
        self._make_callbacks()
        if now - self._beat_at >= heartbeat.INTERVAL_SECONDS:
            self._beat_at = now
            heartbeat.beat(self._connection, self._name, "relay")

    def _job(self, name: str, job: Callable[[Cursor], int]) -> None:
        """Run ``job`` in a transaction of its own, again while there is more, for about half a tick."""
        until = time.monotonic() + timings().relay_tick_seconds / 2
        with self._kept_apart(name):
            while done := self._once(name, job, self._connection):
                log.info("relay_did", job=name, rows=done)
                if time.monotonic() > until:
                    return

    def _once(self, name: str, job: Callable[[Cursor], int], connection: EngineConnection) -> int:
        with connection.transaction() as cursor:
            done = job(cursor)
            crash_point("relay_before_commit", name if done else "")
        crash_point("relay_after_commit", name if done else "")
        return done

    def _ring(self) -> None:
        with self._kept_apart("ring"):
            for bell in self.due():
                crash_point("relay_before_ring", bell.channel)
                if ring_bare(self._publisher, bell):
                    log.info("relay_rang", channel=bell.channel, lane=str(bell.lane), backlog=bell.backlog)

    def _make_callbacks(self) -> None:
        with self._kept_apart("callbacks"):
            with self._connection.transaction() as cursor:
                services, written_to = callbacks.services(cursor), callbacks.reply_services(cursor)
            for service_id in services:
                self._job("callbacks", unless_held(partial(callbacks.make, service_id=service_id)))
            for service_id in written_to:
                self._job("tell_replies", unless_held(partial(callbacks.tell_replies, service_id=service_id)))

    @contextmanager
    def _kept_apart(self, name: str) -> Iterator[None]:
        """What one job cannot do must keep no other from its work, and must not fill the disk with its complaints."""
        try:
            yield
        except Exception as error:  # the boundary of a process that nobody starts by hand again
            close_old_connections()
            kind = type(error).__name__
            if time.monotonic() - self._complained.get((name, kind), float("-inf")) < COMPLAIN_SECONDS:
                return
            self._complained[name, kind] = time.monotonic()
            expected = isinstance(error, (psycopg.Error, DatabaseError, *BROKER_ERRORS))
            log.warning("relay_job_failed", job=name, error=kind, reason=str(error)[:200], exc_info=not expected)

    def due(self) -> list[Bell]:
        """A bare bell for every channel and lane with something due that nobody takes; none in a database that is held."""
        with self._connection.transaction() as cursor:
            if guard().look(cursor).held:
                return []
            cursor.execute(DUE, {"patience": timings().relay_tick_seconds / 2})
            rows = cursor.fetchall()
        return [Bell(row[0], Lane(LANES[row[1]]), backlog=row[2], oldest=round(row[3], 1)) for row in rows]
