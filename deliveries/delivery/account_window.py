"""How many calls one account may have under way in one worker process: what its provider takes without getting slower.

Called by ``window``, under its lock. The limit follows the answers, round by round: it grows by its square root while calls
take no more than twice their usual time, shrinks with what they take longer, and halves when a tenth of them say that the
provider is overloaded or away. The rule is the "gradient" of Netflix's concurrency-limits (https://github.com/Netflix/concurrency-limits),
which is TCP Vegas for calls. It keeps a provider that hangs from holding hundreds of messages, each of them a doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Where an account begins: 4,000 calls a second where each takes 50 ms.
START = 200
LEAST = 4
#: Calls may take so many times their usual time before the limit shrinks.
TOLERANCE = 2.0
#: And so many seconds in any case: what varies below is our own process, not the provider.
QUICK_SECONDS = 0.1
#: A round has at least so many answers, lest one slow call decide.
ROUND = 10
#: So much of a change in what is usual is believed per round.
LEARNT = 0.1
#: A share of bad answers that is no accident.
BAD_SHARE = 0.1


@dataclass(slots=True)
class AccountWindow:
    """One account's window. ``most``: its provider's own bound. Not thread-safe: ``Window`` locks."""

    most: int
    limit: float = START
    in_flight: int = 0
    #: Seconds that a call takes, as a rule; 0 before the first round.
    usual: float = 0.0
    _answers: int = 0
    _bad: int = 0
    _seconds: float = 0.0
    _highest: int = 0

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.most)

    def free(self, *, headroom: float = 1.0) -> int:
        """Calls that may begin, where the limit is stretched by ``headroom``."""
        return max(0, math.ceil(self.limit * headroom) - self.in_flight)

    @property
    def full(self) -> bool:
        """Is less than half of it free? Then it waits for more answers, so that claims stay large."""
        return self.free() < max(1, int(self.limit / 2))

    def begin(self, calls: int) -> None:
        """``calls`` are claimed."""
        self.in_flight += calls
        self._highest = max(self._highest, self.in_flight)

    def leave(self, calls: int = 1) -> None:
        """``calls`` did not happen after all."""
        self.in_flight -= calls

    def answered(self, seconds: float, *, bad: bool) -> None:
        """A call ended after ``seconds``; ``bad``: the provider was overloaded, away or silent."""
        self.in_flight -= 1
        self._answers += 1
        self._bad += bad
        self._seconds += seconds
        if self._answers >= max(ROUND, self.limit / 2):
            self._adapt(self._seconds / self._answers)

    def _adapt(self, mean: float) -> None:
        if self._bad >= self._answers * BAD_SHARE:
            self.limit /= 2
        else:
            fine = max(QUICK_SECONDS, TOLERANCE * (self.usual or mean))
            gradient = min(1.0, max(0.5, fine / mean)) if mean else 1.0
            used = self._highest > self.limit / 2
            self.limit = self.limit * gradient + (math.sqrt(self.limit) if used else 0.0)
            self.usual = mean if not self.usual else self.usual + LEARNT * (mean - self.usual)
        self.limit = min(float(self.most), max(LEAST, self.limit))
        self._answers = self._bad = 0
        self._seconds, self._highest = 0.0, self.in_flight
