"""How many messages may wait for their answer on one bind: as many as the account says, fewer while the SMSC throttles.

Used by ``bind``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SendWindow:
    """Halves at each throttle and grows back by one for each window of acceptances. Belongs to its loop."""

    most: int
    limit: float = field(init=False)
    in_flight: int = 0

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @property
    def free(self) -> int:
        """How many more may begin."""
        return max(0, int(self.limit) - self.in_flight)

    def begin(self) -> None:
        """One is written."""
        self.in_flight += 1

    def end(self) -> None:
        """It was answered, or is not waited for any more."""
        self.in_flight -= 1

    def accepted(self) -> None:
        """The SMSC took one."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def throttled(self) -> None:
        """The SMSC asked for less at once."""
        self.limit = max(1.0, self.limit / 2)
