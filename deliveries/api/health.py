"""Is it alive, is it ready, and the numbers for Prometheus. No key: bind or fence them off as docs/how-to/operate.md says."""

from __future__ import annotations

import structlog
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from deliveries.api.problems import waiting

log = structlog.get_logger(__name__)

WAITING = """
SELECT p.channel, p.lane, count(*) FILTER (WHERE p.lease_until IS NULL), count(*) FILTER (WHERE p.lease_until IS NOT NULL),
       coalesce(extract(epoch FROM chaski_now() - min(p.due_at) FILTER (
           WHERE NOT p.blocked AND p.due_at <= chaski_now() AND p.lease_until IS NULL)), 0)::float8
FROM pending p GROUP BY p.channel, p.lane
"""
ALIVE = """
SELECT kind, count(*) FROM heartbeat WHERE seen_at > chaski_now() - interval '20 seconds' GROUP BY kind
"""
LANE_NAMES = ("urgent", "normal", "bulk")


def live(request: HttpRequest) -> HttpResponseBase:
    """This process answers."""
    return JsonResponse({"status": "alive"})


def ready(request: HttpRequest) -> HttpResponseBase:
    """This process can accept messages: it needs the database, and neither the broker nor a worker."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool")
            if cursor.fetchone()[0]:
                return _unready("the database is read-only")
            cursor.execute("SELECT 1 FROM message LIMIT 1")
            cursor.execute("SELECT held_reason FROM lineage WHERE held_at IS NOT NULL")
            held = cursor.fetchone()
    except DatabaseError as error:
        connection.close()
        return _unready(f"the database does not answer: {type(error).__name__}")
    if held:
        # Acceptance does not depend on it: what is accepted now goes out when an operator arms the database.
        return JsonResponse({"status": "degraded", "reason": f"nothing is sent: {held[0]}"})
    return JsonResponse({"status": "ready"})


def _unready(reason: str) -> JsonResponse:
    log.warning("not_ready", reason=reason)
    return JsonResponse({"status": "unready", "reason": reason}, status=503, headers=waiting(503))


def metrics(request: HttpRequest) -> HttpResponseBase:
    """The queue as the database has it: depth and age by channel and lane, and who is alive."""
    registry = CollectorRegistry()
    names = ["channel", "lane"]
    waiting = Gauge("chaski_waiting_messages", "Messages that wait", names, registry=registry)
    in_flight = Gauge("chaski_in_flight_messages", "Messages under a lease", names, registry=registry)
    oldest = Gauge("chaski_oldest_due_seconds", "Age of the oldest due message", names, registry=registry)
    alive = Gauge("chaski_processes", "Processes seen in the last 20 s", ["kind"], registry=registry)
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        for channel, lane, waits, leased, age in cursor.fetchall():
            waiting.labels(channel, LANE_NAMES[lane]).set(waits)
            in_flight.labels(channel, LANE_NAMES[lane]).set(leased)
            oldest.labels(channel, LANE_NAMES[lane]).set(age)
        cursor.execute("SELECT count(*) FROM lineage WHERE held_at IS NOT NULL")
        Gauge("chaski_held", "1: restored from a backup and not armed", registry=registry).set(cursor.fetchone()[0])
        cursor.execute(ALIVE)
        for kind, count in cursor.fetchall():
            alive.labels(kind).set(count)
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4; charset=utf-8")
