"""S11: is a long backlog drained as fast at its end as at its start, with little in the broker and no growth of workers?"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks import verify
from benchmarks.drain import DELAY, QUEUE, wait_until_dry
from benchmarks.figures import Finding, Measure, alone
from benchmarks.run import Run, Stage, say, stage
from benchmarks.servers import Servers
from benchmarks.sink import STEP

MESSAGES = 1_000_000
MB = 1_000_000


def measure(run: Run) -> list[Finding]:
    """One backlog after the other."""
    count = run.count(MESSAGES)
    ends: list[float] = []
    starts: list[float] = []
    memory: list[float] = []
    growth: list[float] = []
    with stage(run) as on:
        for turn in range(1, run.turns(1) + 1):
            start, end, highest, grown = _drain(on, count)
            starts.append(start)
            ends.append(end)
            memory.append(highest / MB)
            growth.append(grown / MB)
            say(
                f"backlog {turn}/{run.turns(1)}: {start:,.0f}/s at the start, {end:,.0f}/s at the end, {memory[-1]:.1f} MB"
            )
    first, last = Measure("the first tenth", "/s", tuple(starts)), Measure("the last tenth", "/s", tuple(ends))
    pairs = tuple(end / start for start, end in zip(starts, ends, strict=True))
    grew = Measure("growth of the workers' memory", "MB", tuple(growth))
    note = f"{count:,} messages"
    return [
        Finding("S11 speed", last.median / first.median, pairs, (first, last, grew), (note,)),
        alone("S11 memory", Measure("Valkey at its highest", "MB", tuple(memory)), notes=[note]),
    ]


def _drain(on: Stage, count: int) -> tuple[float, float, float, float]:
    """Messages per second of the first and the last tenth by the sink's clock; bytes of Valkey; bytes that workers grew."""
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url(DELAY))
    on.sink.reset()
    with on.chaski.running() as running, _watch(on.servers) as highest:
        running.hold(QUEUE)
        say(f"backlog: accepting {count:,}")
        on.chaski.inside("fill", str(service.id), str(count))
        on.servers.settle()
        before = running.memory()
        running.let_go(QUEUE)
        wait_until_dry(on, service.id)
        grown = running.memory() - before
        running.all_alive()
    verify.chaski_sent_each_once(on.chaski, service, on.sink, count)
    timeline = on.sink.seen().timeline
    return rate_of(timeline, 0.0, 0.1), rate_of(timeline, 0.9, 1.0), max(highest), grown


def rate_of(timeline: Sequence[int], begin: float, end: float) -> float:
    """Calls per second between two shares (0 to 1) of all calls, from the calls of each step."""
    total, done, calls, steps = sum(timeline), 0, 0, 0
    for step in timeline:
        if begin * total <= done < end * total:
            calls += step
            steps += 1
        done += step
    return calls / (steps * STEP) if steps else 0.0


@contextmanager
def _watch(servers: Servers) -> Iterator[list[float]]:
    """Look at Valkey's memory twice a second."""
    seen: list[float] = []
    over = threading.Event()
    client = servers.client(0)

    def look() -> None:
        while True:
            seen.append(float(client.info("memory")["used_memory"]))
            if over.wait(0.5):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
