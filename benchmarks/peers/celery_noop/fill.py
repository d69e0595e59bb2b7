"""Publishes COUNT tasks: `python -m benchmarks.peers.celery_noop.fill COUNT`."""

from __future__ import annotations

import sys

from benchmarks.peers.celery_noop.celery import noop

if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        noop.delay(number)
    print("{}")
