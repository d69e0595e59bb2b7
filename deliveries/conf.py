"""The numbers of the delivery engine, read once from Django's settings and typed. Read by every module of this app.

The durations belong together: a lease must outlive a deadline, a sweep must come after a lease. Tests scale them all at
once with ``CHASKI_TIME_SCALE``; nothing else may change one alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from django.conf import settings

from channels.base import Provider


@dataclass(frozen=True, slots=True)
class Timings:
    """Every duration of the engine, in seconds, multiplied by ``scale`` where it is a matter of taste."""

    scale: float = 1.0
    relay_tick_seconds: float = 1.0
    sweep_seconds: float = 5.0
    #: Three sweeps. The mark of a relay that is older than this means that the database was away.
    outage_seconds: float = 15.0
    task_run_seconds: float = 5.0
    #: Under load: results wait for each other so long, at most.
    record_seconds: float = 0.05
    #: The longest wait between two tries to record while the database is away.
    record_retry_seconds: float = 5.0
    #: Between two looks whether results can be recorded whose rows somebody holds.
    locked_seconds: float = 1.0
    #: For how long who passes over what somebody holds waits for any lock: there should be none left. The same at every scale.
    lock_seconds: float = 0.1
    bell_slot_seconds: float = 15.0
    #: Between two bells of one process that others may help it.
    help_seconds: float = 1.0
    replay_seconds: float = 15.0
    pause_cache_seconds: float = 0.5
    account_cache_seconds: float = 2.0
    #: The engine's statement_timeout and a margin; as the server's limit, the same at every scale.
    answer_seconds: float = 7.0
    ask_seconds: float = 2.0
    look_seconds: float = 3.0
    deaf_seconds: float = 30.0
    last_words_seconds: float = 20.0

    def deadline(self, provider: type[Provider]) -> float:
        """Seconds that one attempt may take, counted from before its claim."""
        return provider.deadline_seconds * self.scale

    def ask(self, provider: type[Provider]) -> float | None:
        """Seconds after a doubt until the vendor can be asked what it has; None where it cannot be asked at all."""
        return provider.find_after_seconds * self.scale if provider.reconciles else None

    def lease(self, provider: type[Provider]) -> float:
        """Seconds for which a claim holds; longer than any deadline by the time a record may need."""
        return provider.lease_seconds * self.scale


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything there may be at once, or in one request."""

    claim_rows: int = 250
    record_rows: int = 250
    places: int = 1_000
    ring_ids: int = 100
    ring_backlog: int = 5_000
    queue_bells: int = 64
    batch_rows: int = 10_000
    batch_bytes: int = 10_000_000
    stream_rows: int = 1_000_000
    message_bytes: int = 1_000_000
    file_bytes: int = 25_000_000
    text_chars: int = 100_000
    crashes: int = 3
    asks: int = 6
    page_rows: int = 200


@cache
def timings() -> Timings:
    """The durations of this process."""
    scale: float = settings.CHASKI_TIME_SCALE
    return Timings(
        scale=scale,
        relay_tick_seconds=1.0 * scale,
        sweep_seconds=5.0 * scale,
        # A loaded machine may stand still for a second or two, and that is no outage.
        outage_seconds=max(15.0 * scale, 3.0),
        task_run_seconds=5.0 * scale,
        bell_slot_seconds=15.0 * scale,
        help_seconds=1.0 * scale,
        replay_seconds=15.0 * scale,
        record_retry_seconds=5.0 * scale,
        locked_seconds=1.0 * scale,
        ask_seconds=2.0 * scale,
        look_seconds=3.0 * scale,
        deaf_seconds=30.0 * scale,
        last_words_seconds=20.0 * scale,
    )


@cache
def limits() -> Limits:
    """The bounds of this process."""
    return Limits()
