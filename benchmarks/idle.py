"""S15: what the whole system uses while nothing happens: web, workers, relay, beat, Flower, PostgreSQL, Valkey."""

from __future__ import annotations

import time

from benchmarks.cpu import cpu_seconds
from benchmarks.figures import Finding, Measure, alone
from benchmarks.processes import Running
from benchmarks.run import Run, Stage, say, stage
from config import processes
from config.ports import any_free

SECONDS = 30.0
SETTLE_SECONDS = 15.0
PARTS = ("web", "worker", "relay", "beat", "flower")


def measure(run: Run) -> list[Finding]:
    """Windows of thirty seconds, after everything has come to rest."""
    used: dict[str, list[float]] = {name: [] for name in (*PARTS, "PostgreSQL", "Valkey")}
    with stage(run) as on:
        more = (processes.beat(str(on.home / "beat-schedule")), processes.flower(any_free()))
        with on.chaski.running(web=True, more=more) as running:
            time.sleep(SETTLE_SECONDS)
            for turn in range(1, run.turns() + 1):
                before = _used(on, running)
                time.sleep(SECONDS)
                for name, seconds in _used(on, running).items():
                    used[name].append((seconds - before[name]) / SECONDS * 100)
                say(f"idle {turn}/{run.turns()}: {sum(values[-1] for values in used.values()):.2f}% of a core")
            running.all_alive()
    whole = Measure("everything", "% of a core", tuple(map(sum, zip(*used.values(), strict=True))))
    return [alone("S15", whole, *(Measure(name, "%", tuple(values)) for name, values in used.items()))]


def _used(on: Stage, running: Running) -> dict[str, float]:
    postgres, valkey = on.servers.pids()
    servers = {"PostgreSQL": cpu_seconds([postgres]), "Valkey": cpu_seconds([valkey])}
    return {**{name: running.cpu(name) for name in PARTS}, **servers}
