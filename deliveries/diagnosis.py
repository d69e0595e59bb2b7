"""Diagnosis: what is missing for messages to flow, each finding with its fix. Called by `manage.py doctor`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from chaski.vocabulary import Lane
from deliveries.delivery.spill import REJECTED, TORN, orphans, usable
from deliveries.doorbell import BROKER_ERRORS, Publisher
from deliveries.findings import Finding, Level, accounts, ask, codes
from deliveries.models.parked import NOTES

#: The queues that must have somebody who takes from them.
QUEUES = {*map(str, Lane), "control"}
#: The queues that living workers take from: how many do, and how long ago the last of them claimed.
TAKEN = """
SELECT queue, count(*), extract(epoch FROM chaski_now() - max(claimed_at))::float8
FROM heartbeat CROSS JOIN LATERAL unnest(string_to_array(queues, ',')) AS queue
WHERE kind = 'worker' AND seen_at > chaski_now() - interval '20 seconds' GROUP BY queue
"""


def worst(findings: list[Finding]) -> Level:
    """The level of the whole."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.BROKEN, Level.DEGRADED) if level in levels), Level.OK)


def examine() -> list[Finding]:
    """Every check, in the order in which they depend on each other."""
    findings = list(_database())
    if worst(findings) is Level.BROKEN:
        return findings
    checks: list[Callable[[], Iterator[Finding]]] = [
        _lineage,
        _settings,
        _broker,
        _processes,
        _queue,
        _parked,
        _clock,
        accounts,
        codes,
        _partitions,
        _spill,
    ]
    return [*findings, *(finding for check in checks for finding in check())]


def _database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('synchronous_commit'), current_setting('server_version')")
            synchronous, version = cursor.fetchone()
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        reason = str(error).strip().splitlines()[0]
        yield Finding("database", Level.BROKEN, f"does not answer: {reason}", "Start PostgreSQL, or mend DATABASE_URL.")
        return
    if plan:
        yield Finding("database", Level.BROKEN, f"lacks {len(plan)} migrations", "Run `manage.py migrate`.")
        return
    if synchronous != "on":
        fix = "Remove the override of synchronous_commit for this role and database."
        yield Finding("database", Level.BROKEN, f"synchronous_commit is {synchronous}: a crash loses messages", fix)
    yield Finding("database", Level.OK, f"PostgreSQL {version} answers, migrations are applied")


def _lineage() -> Iterator[Finding]:
    for at, reason in ask("SELECT held_at, held_reason FROM lineage WHERE held_at IS NOT NULL"):
        found = f"held since {at:%Y-%m-%d %H:%M} UTC, nothing is sent: {reason}"
        yield Finding("restored", Level.DEGRADED, found, "Look with `manage.py arm`, which also lets it go.")


def _broker() -> Iterator[Finding]:
    publisher = Publisher()
    started = time.monotonic()
    try:
        depths = {str(lane): publisher.depth(lane) for lane in Lane}
        waiting = publisher.queues()
    except BROKER_ERRORS as error:
        fix = "Start Valkey, or mend CHASKI_BROKER_URL. Messages are accepted meanwhile and wait."
        yield Finding("broker", Level.BROKEN, f"does not answer: {type(error).__name__}", fix)
        return
    finally:
        publisher.close()
    bells = ", ".join(f"{lane} {depth}" for lane, depth in depths.items())
    took = (time.monotonic() - started) * 1000
    yield Finding("broker", Level.OK, f"answers in {took:.0f} ms; bells waiting: {bells}")
    taken = {queue for queue, _, _ in ask(TAKEN)} | QUEUES
    for queue in waiting.keys() - taken:
        fix = "Name it in RETIRED_QUEUES of config/celery.py when it was renamed; else find out who fills it."
        yield Finding(
            f"queue {queue}", Level.DEGRADED, f"{waiting[queue]:,} tasks wait in it, and no worker takes them", fix
        )


def _processes() -> Iterator[Finding]:
    rows = ask(
        "SELECT kind, count(*) FROM heartbeat WHERE seen_at > chaski_now() - interval '20 seconds' GROUP BY kind"
    )
    alive = {row[0]: row[1] for row in rows}
    starts = {
        "worker": "Start one: `celery -A config worker --pool threads -Q urgent,normal,bulk,control`.",
        "relay": "Start one: `manage.py relay`.",
    }
    for kind, start in starts.items():
        if alive.get(kind):
            yield Finding(kind, Level.OK, f"{alive[kind]} alive")
        else:
            yield Finding(kind, Level.BROKEN, "none was seen in the last 20 seconds", start)
    if alive.get("worker"):
        yield from _workers()
    beats = ask("SELECT extract(epoch FROM chaski_now() - max(slot))::float8 FROM periodic_slot WHERE job = 'minute'")
    age = beats[0][0]
    if age is None or age > 300:
        found = "never ran" if age is None else f"ran last {age:.0f} s ago"
        yield Finding("beat", Level.DEGRADED, f"periodic work {found}", "Start one: `celery -A config beat`.")
    else:
        yield Finding("beat", Level.OK, f"periodic work ran {age:.0f} s ago")


def _workers() -> Iterator[Finding]:
    """Whether every queue has somebody who takes from it, and when that somebody last claimed."""
    taken = {queue: (count, age) for queue, count, age in ask(TAKEN)}
    for queue in sorted(QUEUES):
        count, age = taken.get(queue, (0, None))
        if count:
            claimed = "no claim yet" if age is None else f"last claim {age:.0f} s ago"
            yield Finding(f"queue {queue}", Level.OK, f"{count} workers, {claimed}")
        else:
            fix = f"Start one: `celery -A config worker --pool threads -Q {queue}`, or add {queue} to another's -Q."
            yield Finding(f"queue {queue}", Level.BROKEN, "no worker takes from it", fix)


def _settings() -> Iterator[Finding]:
    url, kind = settings.CHASKI_PUBLIC_URL, settings.CHASKI_ENV
    if kind == "production" and not url.startswith("https://"):
        fix = "Set CHASKI_PUBLIC_URL to the https:// address that providers and people use."
        yield Finding(
            "settings", Level.DEGRADED, f"CHASKI_PUBLIC_URL is {url}: keys and receipts travel in the clear", fix
        )
    else:
        yield Finding("settings", Level.OK, f"{kind}, reached at {url}; `manage.py settings` shows all")


def _queue() -> Iterator[Finding]:
    rows = ask(
        "SELECT count(*), coalesce(extract(epoch FROM chaski_now() - min(due_at)), 0)::float8 FROM pending"
        " WHERE NOT blocked AND due_at <= chaski_now() AND lease_until IS NULL"
    )
    due, oldest = rows[0]
    claims = ask(
        "SELECT extract(epoch FROM chaski_now() - max(claimed_at))::float8 FROM heartbeat WHERE kind = 'worker'"
    )
    claimed = (
        f"; the last claim was {claims[0][0]:.0f} s ago" if claims[0][0] is not None else "; no worker has claimed yet"
    )
    if due and oldest > 60:
        fix = "Look for a pause (`manage.py resume`), a stopped account, an open breaker, a used-up rate, or too few workers."
        yield Finding("queue", Level.DEGRADED, f"{due:,} due, the oldest for {oldest:.0f} s{claimed}", fix)
    else:
        yield Finding("queue", Level.OK, f"{due:,} due{claimed}")
    held = ask("SELECT count(*) FROM pause")[0][0]
    if held:
        yield Finding("pauses", Level.DEGRADED, f"{held} in force", "`manage.py resume` with the same flags ends one.")


def _parked() -> Iterator[Finding]:
    """Tasks that no worker here could take; notes on what was done all the same are only counted."""
    notes = list(NOTES)
    left, times, noted = ask(
        "SELECT count(*) FILTER (WHERE reason <> ALL(%(notes)s)),"
        " coalesce(sum(times) FILTER (WHERE reason <> ALL(%(notes)s)), 0),"
        " coalesce(sum(times) FILTER (WHERE reason = ANY(%(notes)s)), 0) FROM parked",
        {"notes": notes},
    )[0]
    also = f"; {noted:,} of a newer release were taken as far as they are understood here" if noted else ""
    if left:
        fix = "`manage.py parked list` shows them; `parked replay` publishes one again, `parked discard` forgets it."
        yield Finding("parked", Level.DEGRADED, f"{left:,} tasks that no worker took, seen {times:,} times{also}", fix)
    else:
        yield Finding("parked", Level.OK, f"no task{also}")


def _clock() -> Iterator[Finding]:
    before = time.time()
    database = ask("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
    skew = abs(database - (before + time.time()) / 2)
    if skew > 5:
        yield Finding("clock", Level.DEGRADED, f"{skew:.1f} s away from the database's", "Run NTP on both machines.")
    else:
        yield Finding("clock", Level.OK, f"within {skew:.1f} s of the database's")


def _partitions() -> Iterator[Finding]:
    there = ask(
        "SELECT to_regclass(to_char((now() + interval '1 month') AT TIME ZONE 'UTC', '\"message_y\"YYYY\"m\"MM'))"
    )
    if there[0][0] is None:
        yield Finding(
            "partitions", Level.BROKEN, "next month's is missing", "Start beat, or run `chaski_ensure_partitions(3)`."
        )


def _spill() -> Iterator[Finding]:
    """The files of workers on this machine; those of another one are seen only there."""
    folder = Path(settings.CHASKI_SPILL)
    if not usable(folder) and (folder.exists() or _workers_here()):
        fix = "Make CHASKI_SPILL a folder that the workers may write to, on a disk that outlives them."
        found = f"{folder} cannot be written: results of an outage of the database would be in memory only"
        yield Finding("spill", Level.DEGRADED, found, fix)
    files = orphans(folder)
    if files:
        fix = "Start a worker on this machine: it settles them. `spill_not_settled` in its log says what hinders it."
        found = f"{len(files)} files of workers that ended while the database was away, such as {files[0]}"
        yield Finding("spill", Level.DEGRADED, found, fix)
    aside = sorted(file for ending in (REJECTED, TORN) for file in folder.glob(f"*{ending}"))
    if aside:
        fix = "Read the lines: ids, what the provider said, why. `resolve` what they concern, then delete the file."
        found = f"{len(aside)} files of results that the database did not take, such as {aside[0]}"
        yield Finding("spill", Level.DEGRADED, found, fix)
    if not files and not aside:
        yield Finding("spill", Level.OK, f"nothing left behind in {folder}")


def _workers_here() -> bool:
    rows = ask(
        "SELECT split_part(name, '@', 2) FROM heartbeat"
        " WHERE kind = 'worker' AND seen_at > chaski_now() - interval '20 seconds'"
    )
    return (socket.gethostname(),) in [tuple(row) for row in rows]
