"""Signs of life: which workers and relays run, and when a worker last claimed. Read by `doctor` and the admin.

With each of them the lineage advances: a backup is behind by then.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Protocol

import psycopg
import structlog

from deliveries.delivery.database import EngineConnection
from deliveries.lineage import guard
from deliveries.threads import going_on

log = structlog.get_logger(__name__)
INTERVAL_SECONDS = 5.0

BEAT = """
INSERT INTO heartbeat (name, kind, seen_at, claimed_at, queues)
VALUES (%(name)s, %(kind)s, chaski_now(), chaski_now() - make_interval(secs => %(claimed_ago)s), %(queues)s)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, queues = excluded.queues,
    claimed_at = coalesce(excluded.claimed_at, heartbeat.claimed_at)
"""


class Claims(Protocol):
    """What a worker's heartbeat asks its engine."""

    worker: str
    claimed_at: float | None


def beat(
    connection: EngineConnection, name: str, kind: str, *, claimed_ago: float | None = None, queues: str = ""
) -> None:
    """Leave one sign of life; ``claimed_ago`` in seconds. A database that is away is no reason to stop living."""
    try:
        with connection.transaction() as cursor:
            cursor.execute(BEAT, {"name": name, "kind": kind, "claimed_ago": claimed_ago, "queues": queues})
            tell_witnesses = guard().advance(cursor)
        tell_witnesses()
    except psycopg.Error as error:
        log.warning("heartbeat_not_written", kind=kind, error=type(error).__name__)
        guard().ask()  # when the database is back, what they know is known


def start(kind: str, claims: Claims, queues: Iterable[str]) -> None:
    """Beat every five seconds from a thread of its own."""
    taken = ",".join(sorted(queues))

    def run() -> None:
        connection = EngineConnection()
        while True:
            beat_for(claims, connection, kind, taken)
            time.sleep(INTERVAL_SECONDS)

    threading.Thread(target=run, name="chaski-heartbeat", daemon=True).start()


def beat_for(claims: Claims, connection: EngineConnection, kind: str, queues: str) -> None:
    """Leave one sign of life of a worker. Never raises: the thread that calls it is the process's only one."""
    with going_on("heartbeat"):
        ago = None if claims.claimed_at is None else time.monotonic() - claims.claimed_at
        beat(connection, claims.worker, kind, claimed_ago=ago, queues=queues)


def process_name(kind: str) -> str:
    """A name for this process: kind, host and pid."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}"


def end_process_after(seconds: float) -> None:
    """End this process for good after ``seconds``: a shutdown in the threads pool would wait without limit."""

    def end() -> None:
        log.error("shutdown_took_too_long", seconds=seconds)
        os._exit(70)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
