"""How fast a vendor takes messages: through one account, and to one of its recipients.

Declared by providers (``Provider.usual_rates``), set by an account's options, kept by the delivery engine's pacing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

_WRITTEN = re.compile(r"(?P<count>[0-9]{1,9})\s*/\s*(?P<number>[0-9]{0,9}(?:\.[0-9]{1,6})?)\s*(?P<unit>s|m|h|d)\Z")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: What lifts a usual rate.
UNLIMITED = "none"


class InvalidRate(ValueError):
    """A text that is no rate; says how one is written."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` messages in ``seconds``, evenly spaced: never two of them closer than ``interval``."""

    count: int
    seconds: float = 1.0

    @property
    def interval(self) -> float:
        """Seconds from one message to the next."""
        return self.seconds / self.count

    def __str__(self) -> str:
        return f"{self.count}/{self.seconds:g}s"


@dataclass(frozen=True, slots=True)
class Rates:
    """What is allowed through one account, and to each recipient of it; None: as fast as it goes."""

    account: Rate | None = None
    recipient: Rate | None = None


def parse(text: str) -> Rate | None:
    """``80/s``, ``15/15m``, ``1/6s``: messages in a time of seconds, minutes, hours or days; ``none``: unlimited.

    Raises ``InvalidRate``.
    """
    if text.strip() == UNLIMITED:
        return None
    found = _WRITTEN.match(text.strip())
    if found is None:
        raise InvalidRate("must be messages in a time, such as 80/s, 1/6s or 15/15m, or none")
    count, seconds = int(found["count"]), float(found["number"] or 1) * _UNITS[found["unit"]]
    if not count or not seconds or not isfinite(seconds):
        raise InvalidRate("must allow at least one message in a time above zero, such as 1/6s, or be none")
    return Rate(count, seconds)
