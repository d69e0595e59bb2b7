"""Found on PYTHONPATH by a process whose wall clock is to be wrong by SKEW_SECONDS. Its monotonic clock is right.

It stands in for a machine without NTP: Linux keeps one wall clock for all processes, so what Python asks is shifted.
"""

import os
from datetime import UTC, datetime, timedelta

try:
    import time_machine
except ImportError as error:
    raise SystemExit(f"this process was to have a wrong clock: {error}") from error  # site only prints other errors

time_machine.travel(datetime.now(UTC) + timedelta(seconds=float(os.environ["SKEW_SECONDS"])), tick=True).start()
