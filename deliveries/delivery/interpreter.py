"""What the interpreter of a worker process is told, once, when all is imported and started. Called by the tasks' start.

Measured on a drain against a provider that answers after 50 ms, two processes on two cores (docs/benchmarks.md).
"""

from __future__ import annotations

import gc
import sys

#: A thread that wants to go on waits for the one that holds the interpreter; five times in each record at 5 ms, which is the
#: usual, while the loop is busy. 0.5 ms gave about a tenth more messages a second.
SWITCH_SECONDS = 0.0005
#: Objects that are made before the youngest are looked through for cycles; 700 as a rule. A message makes about a hundred, none
#: of them in cycles.
YOUNG = 50_000


def prepare() -> None:
    """Let threads change places sooner, and the collector leave alone what has been there from the start.

    A full collection went through half a million objects of Django's and Celery's, a quarter of the loop's time under load.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
