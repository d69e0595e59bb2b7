"""How much the processes complain while something is away: a disk must survive an outage of a night."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.system import FaultSystem

#: So many lines of complaint may one process write in a minute.
LINES_PER_MINUTE = 100
_CALM = re.compile(r"\w+: \S+ \[(info|debug) *\] ")


@contextmanager
def log_volume(system: FaultSystem) -> Iterator[None]:
    """Fails when a process wrote more than a hundred lines of complaint per begun minute of the block.

    What is told of ordinary work, one line per message at most, is no complaint.
    """
    heard, begun = len(system.heard()), time.monotonic()
    yield
    minutes = math.ceil((time.monotonic() - begun) / 60)
    lines = [line for line in system.heard()[heard:] if not _CALM.match(line)]
    volume = Counter(line.partition(":")[0] for line in lines)
    loud = {name: count for name, count in volume.items() if count > LINES_PER_MINUTE * minutes}
    assert not loud, (
        f"{loud}, among them:\n" + "\n".join(line for line in lines if line.partition(":")[0] in loud)[:6000]
    )
