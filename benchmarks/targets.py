"""The targets: what is measured, the floor below which it must not be, the goal. Read by the command and the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table. ``benchmark`` is the name under which `python -m benchmarks` runs it."""

    number: str
    words: str
    unit: str
    floor: float
    goal: float
    benchmark: str
    aspect: str = ""
    less_is_better: bool = False

    @property
    def key(self) -> str:
        """Names it uniquely: ``S7 p99``."""
        return f"{self.number} {self.aspect}".strip()

    def verdict(self, figure: float) -> str:
        """``goal``, ``floor`` or ``missed``."""
        sign = -1 if self.less_is_better else 1
        if sign * figure >= sign * self.goal:
            return "goal"
        return "floor" if sign * figure >= sign * self.floor else "missed"


TARGETS = (
    Target("S1", "durable drain against a bare Celery no-op drain, as many worker processes", "x", 1.5, 3, "drain"),
    Target("S2", "durable drain against tuned Django + Celery, one task per message", "x", 10, 24, "drain"),
    Target("S3", "durable drain against naive Django + Celery", "x", 25, 60, "drain"),
    Target("S4", "intake in process, as a share of COPY by 1000 rows", "%", 25, 40, "intake"),
    Target("S5", "POST /batches, as a share of COPY by 1000 rows", "%", 8, 20, "batches"),
    Target("S6", "POST /messages against a bare Django view with one insert", "x", 0.5, 0.8, "requests"),
    Target(
        "S7",
        "accepted -> recorded as sent over the provider's 50 ms, 50/s",
        "ms",
        12,
        8,
        "latency",
        "p50",
        less_is_better=True,
    ),
    Target(
        "S7",
        "accepted -> recorded as sent over the provider's 50 ms, 50/s",
        "ms",
        25,
        15,
        "latency",
        "p99",
        less_is_better=True,
    ),
    Target("S8", "worker CPU per message", "ms", 0.75, 0.30, "drain", less_is_better=True),
    Target("S9", "receipts stored and applied", "/s", 2_000, 5_000, "receipts"),
    Target("S10", "SMTP to a local sink against django-post_office with 2 processes", "x", 2, 5, "mail"),
    Target("S11", "drain at the end of a backlog against its start", "x", 0.9, 0.97, "backlog", "speed"),
    Target(
        "S11", "the broker's memory at its highest meanwhile", "MB", 50, 20, "backlog", "memory", less_is_better=True
    ),
    Target("S12", "statements per batch of 250", "", 8, 5, "counts", "statements", less_is_better=True),
    Target("S12", "Celery tasks per 10,000 messages of a backlog", "", 100, 50, "counts", "tasks", less_is_better=True),
    Target("S13", "the other channels' drain beside a dead provider against without it", "x", 0.9, 0.97, "neighbours"),
    Target(
        "S14",
        "urgent accepted -> sent p99 over a bulk backlog against idle",
        "x",
        3,
        1.5,
        "urgent",
        less_is_better=True,
    ),
    Target("S15", "CPU of the whole system when nothing happens", "% of a core", 3, 1, "idle", less_is_better=True),
    Target(
        "footprint",
        "WAL bytes of a delivery with 2 and 4 worker processes against 1",
        "x",
        1.2,
        1.05,
        "footprint",
        less_is_better=True,
    ),
    Target("sink", "what the sink itself can take", "/s", 10_000, 20_000, "sink"),
)


def target(key: str) -> Target:
    """The target ``key``. Raises ``KeyError``."""
    return {each.key: each for each in TARGETS}[key]
