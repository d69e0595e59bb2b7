"""What a million messages leave and use, and that it stays the same per message as workers multiply: WAL, disk, CPU, connections.

Feeds docs/capacity.md. Everything is divided by the number of messages; the rate is told, but two cores set it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks import verify
from benchmarks.cpu import cpu_seconds
from benchmarks.drain import DELAY, QUEUE, wait_until_dry
from benchmarks.figures import Finding, Measure
from benchmarks.run import Run, Stage, say, stage

MESSAGES = 20_000
WORKERS = (1, 2, 4)
WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8"
#: History (messages and what became of them), with its indexes; the queue is empty again afterwards.
DISK = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 FROM pg_class c
WHERE c.relkind = 'r' AND c.relname ~ '^(message|attempt|event|acceptance)(_y[0-9]+m[0-9]+)?$'
"""
CONNECTIONS = "SELECT count(*)::float8 FROM pg_stat_activity WHERE application_name LIKE 'chaski%%'"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Per message: bytes of WAL of intake and of delivery, bytes of history, CPU of the workers and of PostgreSQL in ms."""

    workers: int
    wal_intake: float
    wal_delivery: float
    disk: float
    worker_cpu: float
    postgres_cpu: float
    connections: float


def measure(run: Run) -> list[Finding]:
    """One drain for each number of worker processes, each on servers of its own."""
    count = run.count(MESSAGES)
    found = []
    for workers in WORKERS:
        with stage(replace(run, workers=workers)) as on:
            print_of = _drain(on, count, workers)
        found.append(print_of)
        say(
            f"footprint: {workers} workers, WAL {print_of.wal_intake:,.0f} + {print_of.wal_delivery:,.0f} bytes,"
            f" history {print_of.disk:,.0f} bytes, {print_of.connections:.0f} connections"
        )
    wal = Measure("WAL of a delivery", "bytes", tuple(each.wal_delivery for each in found))
    figure = max(wal.values) / wal.values[0]
    more = (
        Measure("WAL of intake", "bytes", tuple(each.wal_intake for each in found)),
        Measure("history with its indexes", "bytes", tuple(each.disk for each in found)),
        Measure("worker CPU", "ms", tuple(each.worker_cpu for each in found)),
        Measure("PostgreSQL CPU", "ms", tuple(each.postgres_cpu for each in found)),
        Measure("connections", "", tuple(each.connections for each in found)),
    )
    notes = (f"{', '.join(map(str, WORKERS))} worker processes, {count:,} messages each",)
    return [Finding("footprint", figure, (figure,), (wal, *more), notes)]


def _drain(on: Stage, count: int, workers: int) -> Footprint:
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url(DELAY))
    on.sink.reset()
    postgres, _ = on.servers.pids()
    with on.chaski.running() as running:
        running.hold(QUEUE)
        on.servers.settle()
        before, disk = _one(on, WAL), _one(on, DISK)
        on.chaski.inside("fill", str(service.id), str(count))
        accepted = _one(on, WAL)
        on.servers.settle()
        ready, cpu = _one(on, WAL), (running.cpu(), cpu_seconds([postgres]))
        running.let_go(QUEUE)
        wait_until_dry(on, service.id)
        done, used = _one(on, WAL), (running.cpu(), cpu_seconds([postgres]))
        connections = _one(on, CONNECTIONS)
        running.all_alive()
    verify.chaski_sent_each_once(on.chaski, service, on.sink, count)
    return Footprint(
        workers,
        (accepted - before) / count,
        (done - ready) / count,
        (_one(on, DISK) - disk) / count,
        (used[0] - cpu[0]) / count * 1000,
        (used[1] - cpu[1]) / count * 1000,
        connections,
    )


def _one(on: Stage, sql: str) -> float:
    return float(on.servers.query(sql)[0][0])
