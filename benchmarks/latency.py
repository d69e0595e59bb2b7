"""S7, S14: how long from a message's acceptance to the record that it was sent, alone and over a backlog of the bulk lane.

Both ends are times of commits, by PostgreSQL's own clock: that of the acceptance, and that of the row that says "sent". The
provider's own 50 ms are taken off.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks import load, verify
from benchmarks.drain import wait_until_dry
from benchmarks.figures import Finding, Measure, alone, compared, percentile
from benchmarks.processes import Running
from benchmarks.rows import row
from benchmarks.run import Run, Stage, say, stage
from benchmarks.taking_in import CONNECTIONS, headers

PER_SECOND, URGENT_PER_SECOND = 50, 20
MESSAGES, BACKLOG = 1_500, 1_000_000
PROVIDER_MS = 50
#: Longer than a delivery task runs, so that what a held lane had begun is over.
LULL_SECONDS = 7.0
TOOK = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(m.xmin) - pg_xact_commit_timestamp(a.xmin))::float8 * 1000
FROM message m JOIN acceptance a ON a.message_id = m.id WHERE m.service_id = %s
"""


def measure(run: Run) -> list[Finding]:
    """Evenly, 50 a second, over HTTP."""
    count = run.count(MESSAGES)
    runs: list[list[float]] = []
    with stage(run) as on, on.chaski.running(web=True) as running:
        _send(on, running, 100, PER_SECOND)  # warm
        for turn in range(1, run.turns() + 1):
            runs.append(_send(on, running, count, PER_SECOND))
            say(
                f"latency {turn}/{run.turns()}: p50 {percentile(runs[-1], 0.5):.1f} ms, p99 {percentile(runs[-1], 0.99):.1f} ms"
            )
    return [alone(f"S7 p{share}", _percentiles("over the provider's time", share, runs)) for share in (50, 99)]


def urgent(run: Run) -> list[Finding]:
    """Urgent messages while a bulk backlog drains, and while the same backlog is held: only the work differs."""
    backlog = run.count(BACKLOG)
    count = max(20, min(600, backlog // 100))
    busy: list[list[float]] = []
    idle: list[list[float]] = []
    with stage(run) as on, on.chaski.running(web=True, apart=True) as running:
        _send(on, running, 100, PER_SECOND)  # warm
        running.hold("bulk")
        behind = on.chaski.new_service()
        on.chaski.sms(behind, on.sink.url("d50"))
        say(f"urgent: accepting a backlog of {backlog:,}")
        on.chaski.inside("fill", str(behind.id), str(backlog), "--lane", "bulk")
        on.servers.settle()
        for turn in range(1, run.turns() + 1):
            time.sleep(LULL_SECONDS)
            idle.append(_send(on, running, count, URGENT_PER_SECOND, "urgent"))
            running.let_go("bulk")
            time.sleep(1.0)
            busy.append(_send(on, running, count, URGENT_PER_SECOND, "urgent"))
            running.hold("bulk")
            say(
                f"urgent {turn}/{run.turns()}: p99 {percentile(busy[-1], 0.99):.1f} ms, idle {percentile(idle[-1], 0.99):.1f} ms"
            )
        left = on.servers.query(verify.WAITING, behind.id)[0][0]
    notes = [f"{left:,} of {backlog:,} still waited at the end", "the idle figure is with the backlog held"]
    return [compared("S14", _percentiles("under bulk", 99, busy), _percentiles("idle", 99, idle), notes=notes)]


def _send(on: Stage, running: Running, count: int, per_second: float, lane: str = "normal") -> list[float]:
    """Milliseconds of each of ``count`` messages of a service of its own, every one verified."""
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url(f"d{PROVIDER_MS}"))
    url = f"{on.chaski.url}/api/v1/messages"
    bodies = [json.dumps(row(number, priority=lane)).encode() for number in range(count)]
    calls = [load.request(url, body, headers(service)) for body in bodies]
    answers = load.pace(url, calls, connections=CONNECTIONS, per_second=per_second)
    if answers.statuses != Counter({202: count}):
        raise verify.Unsound(f"{url}: answers {dict(answers.statuses)}")
    wait_until_dry(on, service.id)
    running.all_alive()
    verify.chaski_sent_each_once(on.chaski, service, None, count)
    return [float(each[0]) - PROVIDER_MS for each in on.servers.query(TOOK, service.id)]


def _percentiles(name: str, share: int, runs: Sequence[Sequence[float]]) -> Measure:
    return Measure(f"{name}, p{share}", "ms", tuple(percentile(each, share / 100) for each in runs))
