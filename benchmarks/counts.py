"""S12: statements per batch and tasks per backlog. Counted, not timed: the same on every machine."""

from __future__ import annotations

import math
import re
from collections import Counter

import psycopg

from benchmarks import verify
from benchmarks.drain import QUEUE, wait_until_dry
from benchmarks.figures import Finding, Measure, alone
from benchmarks.run import Run, Stage, say, stage

MESSAGES = 10_000
BATCH = 250
#: The engine's connections name themselves; the relay, whose connection bears the same name, does not run meanwhile.
LINE = re.compile(r"^engine-log chaski-engine \S+ LOG:  (?:execute [^:]*|statement):\s+(?P<word>\w+)", re.MULTILINE)
FRAME = {"BEGIN", "COMMIT", "SET"}


def measure(run: Run) -> list[Finding]:
    """Backlogs to a provider that answers after 50 ms, with everything that the workers' engines say in PostgreSQL's log."""
    count = run.count(MESSAGES)
    inner: list[float] = []
    every: list[float] = []
    tasks: list[float] = []
    with stage(run) as on:
        for turn in range(1, run.turns(1) + 1):
            words, given = _count(on, count)
            batches = math.ceil(count / BATCH)
            inner.append(sum(number for word, number in words.items() if word not in FRAME) / batches)
            every.append(words.total() / batches)
            tasks.append(given * 10_000 / count)
            say(
                f"counts {turn}/{run.turns(1)}: {inner[-1]:.1f} statements per {BATCH}, {tasks[-1]:.0f} tasks per 10,000"
            )
    framed = Measure("with BEGIN, COMMIT and SET", "", tuple(every))
    return [
        alone("S12 statements", Measure("statements", "", tuple(inner)), framed, notes=[f"{count:,} messages"]),
        alone("S12 tasks", Measure("tasks", "", tuple(tasks)), notes=[f"{count:,} messages"]),
    ]


def _count(on: Stage, count: int) -> tuple[Counter[str], int]:
    """The first words of the engines' statements, and the tasks that the workers were given."""
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url("d50"))
    on.sink.reset()
    with on.chaski.running(relay=False) as running:
        running.hold(QUEUE)
        on.chaski.inside("fill", str(service.id), str(count))
        _log(on, "'all'")
        start = on.servers.postgres.log.stat().st_size
        before = running.tasks()
        running.let_go(QUEUE)
        wait_until_dry(on, service.id)
        given = running.tasks() - before
        _log(on, "DEFAULT")
    verify.chaski_sent_each_once(on.chaski, service, on.sink, count)
    with on.servers.postgres.log.open(errors="replace") as file:
        file.seek(start)
        return Counter(match["word"].upper() for match in LINE.finditer(file.read())), given


def _log(on: Stage, statements: str) -> None:
    prefix = "'engine-log %a %p '" if statements != "DEFAULT" else "DEFAULT"
    with psycopg.connect(on.servers.database("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET log_line_prefix = {prefix}")
        connection.execute(f"ALTER SYSTEM SET log_statement = {statements}")
        connection.execute("SELECT pg_reload_conf()")
