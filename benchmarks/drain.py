"""S1, S2, S3, S8: how fast a backlog goes out, Chaski and three ways of doing it with Celery alone, in turn.

All are held in the same way: their workers run, warm and connected, and the queue is taken from them while the backlog is
accepted; the clock starts before it is given back and ends with the commit of the last row that says "sent". Until then
workers wait for other queues in a BRPOP of a second, so all begin up to a second late: equally, and in runs of ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmarks import verify
from benchmarks.cpu import cpu_seconds
from benchmarks.figures import Finding, Measure, alone, compared
from benchmarks.libraries import LIBRARIES, Library
from benchmarks.run import Run, Stage, say, stage
from benchmarks.yardsticks import CELERY_NOOP, NAIVE, TUNED, NotInstalled, Yardstick

MESSAGES = 30_000
QUEUE = "normal"
DELAY = "d50"
#: Nothing that can still be working takes longer.
PATIENCE_SECONDS = 1800.0
CAN_WAIT = "SELECT EXISTS (SELECT 1 FROM pending WHERE service_id = %s AND channel = %s AND NOT blocked)"
LAST_SENT = "SELECT max(pg_xact_commit_timestamp(xmin)) FROM message WHERE service_id = %s"


@dataclass(frozen=True, slots=True)
class Drained:
    """One run. CPU in seconds; ``span`` is the sink's own clock from its first call to its last."""

    count: int
    seconds: float
    span: float
    worker_cpu: float
    postgres_cpu: float
    valkey_cpu: float
    sink_cpu: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.count / self.seconds


def measure(run: Run) -> list[Finding]:
    """Rounds of Chaski and each yardstick; a round gives each ratio one pair."""
    count = run.count(MESSAGES)
    sizes = [(CELERY_NOOP, max(100, count // 2)), (TUNED, max(100, count // 12)), (NAIVE, max(50, count // 30))]
    yardsticks = [(peer, number) for peer, number in sizes if installed(peer)]
    libraries = [library for library in LIBRARIES if run.peers and installed(library)]
    peers: dict[str, list[float]] = {library.name: [] for library in libraries}
    chaski: list[Drained] = []
    others: dict[str, list[float]] = {peer.name: [] for peer, _ in yardsticks}
    with stage(run) as on:
        for turn in range(1, run.turns() + 1):
            drained = drain(on, count)
            chaski.append(drained)
            say(f"drain {turn}/{run.turns()}: Chaski {drained.rate:,.0f}/s, {_shares(drained)}")
            for peer, number in yardsticks:
                rate = peer.drain(on, number, run.workers)
                others[peer.name].append(rate)
                say(
                    f"drain {turn}/{run.turns()}: {peer.name} {rate:,.0f}/s, Chaski is {drained.rate / rate:.2f} times that"
                )
            for library in libraries:
                peers[library.name].append(library.drain(on, max(100, count // 4)))
                say(f"drain {turn}/{run.turns()}: {library.name} {peers[library.name][-1]:,.0f}/s")
    measures = [Measure(name, "messages/s", tuple(rates)) for name, rates in peers.items()]
    return _findings(chaski, others, measures)


def installed(peer: Yardstick | Library) -> bool:
    """Can it run? Says what is missing and how to install it; its target is then left out of the report."""
    try:
        peer.check()
    except NotInstalled as missing:
        say(f"left out: {missing}")
        return False
    return True


def drain(on: Stage, count: int, *, before: Callable[[], None] = lambda: None) -> Drained:
    """One verified run of Chaski: ``count`` messages to a provider that answers after 50 ms.

    ``before`` is called when the backlog is accepted and held.
    """
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url(DELAY))
    on.sink.reset()
    with on.chaski.running() as running:
        running.hold(QUEUE)
        on.chaski.inside("fill", str(service.id), str(count))
        before()
        on.servers.settle()
        start = _cpu(on, running.cpu())
        begun = now(on)
        running.let_go(QUEUE)
        wait_until_dry(on, service.id)
        end = _cpu(on, running.cpu())
        running.all_alive()
    ended: datetime = on.servers.query(LAST_SENT, service.id)[0][0]
    verify.chaski_sent_each_once(on.chaski, service, on.sink, count)
    used = [b - a for a, b in zip(start, end, strict=True)]
    return Drained(count, (ended - begun).total_seconds(), on.sink.seen().seconds, *used)


def now(on: Stage) -> datetime:
    """PostgreSQL's clock, by which commits are stamped."""
    moment: datetime = on.servers.query("SELECT clock_timestamp()")[0][0]
    return moment


def wait_until_dry(on: Stage, service_id: int, channel: str = "sms") -> None:
    """Return once nothing of the service waits. Raises ``Unsound`` when half an hour does not suffice."""
    until = time.monotonic() + PATIENCE_SECONDS
    while on.servers.query(CAN_WAIT, service_id, channel)[0][0]:
        if time.monotonic() > until:
            raise verify.Unsound(f"the backlog of service {service_id} does not end")
        time.sleep(0.2)


def _cpu(on: Stage, workers: float) -> tuple[float, float, float, float]:
    postgres, valkey = on.servers.pids()
    return workers, cpu_seconds([postgres]), cpu_seconds([valkey]), cpu_seconds([on.sink.pid])


def _shares(drained: Drained) -> str:
    each = 1000 / drained.count
    return (
        f"CPU per message {drained.worker_cpu * each:.2f} ms workers, {drained.postgres_cpu * each:.2f} ms PostgreSQL, "
        f"{drained.valkey_cpu * each:.3f} ms Valkey; the sink used {drained.sink_cpu / drained.seconds:.0%} of a core"
    )


def _findings(chaski: Sequence[Drained], others: dict[str, list[float]], peers: Sequence[Measure]) -> list[Finding]:
    rate = Measure("Chaski", "messages/s", tuple(one.rate for one in chaski))
    steady = Measure("Chaski, by the sink's clock alone", "messages/s", tuple(one.count / one.span for one in chaski))
    sink = max(one.sink_cpu / one.seconds for one in chaski)
    keys = {key: peer for key, peer in (("S1", CELERY_NOOP), ("S2", TUNED), ("S3", NAIVE)) if others.get(peer.name)}
    found = [
        compared(key, rate, Measure(peer.name, peer.unit, tuple(others[peer.name])), notes=[peer.words])
        for key, peer in keys.items()
    ]
    each = tuple(one.worker_cpu / one.count * 1000 for one in chaski)
    rest = [
        Measure("PostgreSQL CPU", "ms", tuple(one.postgres_cpu / one.count * 1000 for one in chaski)),
        Measure("Valkey CPU", "ms", tuple(one.valkey_cpu / one.count * 1000 for one in chaski)),
        Measure("sink CPU", "ms", tuple(one.sink_cpu / one.count * 1000 for one in chaski)),
    ]
    note = f"the sink used at most {sink:.0%} of one core"
    found.append(alone("S8", Measure("worker CPU", "ms", each), *rest, steady, *peers, notes=[note]))
    return found
