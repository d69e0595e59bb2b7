"""S13: one provider that never answers, with a backlog of its own, and what that costs the other channels."""

from __future__ import annotations

import time

from benchmarks.drain import MESSAGES, drain
from benchmarks.figures import Finding, Measure, compared
from benchmarks.run import Run, Stage, say, stage
from benchmarks.subject import Service

#: Enough to fill every window of the dead provider several times.
STUCK = 2_000
#: For its calls to take every place that they can get.
LEAD_SECONDS = 3.0


def measure(run: Run) -> list[Finding]:
    """Drains of SMS, alone and beside a Telegram whose server takes requests and never answers."""
    count = run.count(MESSAGES)
    alone: list[float] = []
    beside: list[float] = []
    with stage(run) as on:
        for turn in range(1, run.turns() + 1):
            alone.append(drain(on, count).rate)
            stuck = _stuck(on)
            beside.append(drain(on, count, before=lambda stuck=stuck: _begin(on, stuck)).rate)  # type: ignore[misc]
            on.chaski.manage.run("pause", "--service", stuck.name, "--reason", "benchmark")
            say(
                f"neighbours {turn}/{run.turns()}: {beside[-1]:,.0f}/s beside a dead provider, {alone[-1]:,.0f}/s alone"
            )
    measures = Measure("beside a dead provider", "/s", tuple(beside)), Measure("alone", "/s", tuple(alone))
    return [compared("S13", *measures, notes=[f"{STUCK:,} messages wait for a Telegram that never answers"])]


def _stuck(on: Stage) -> Service:
    service = on.chaski.new_service()
    on.chaski.account(
        "telegram",
        "telegram",
        "dead",
        service,
        (f"base_url={on.sink.url('dead')}",),
        ("token=123456:ABCDEFGHIJKLMNOPQRSTUVWXYZ",),
    )
    return service


def _begin(on: Stage, stuck: Service) -> None:
    """Its lane is not the one that is held, so its calls begin at once."""
    on.chaski.inside("fill", str(stuck.id), str(STUCK), "--channel", "telegram", "--lane", "bulk")
    time.sleep(LEAD_SECONDS)
