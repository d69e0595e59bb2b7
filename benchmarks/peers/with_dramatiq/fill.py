"""Publishes COUNT messages: `python -m benchmarks.peers.with_dramatiq.fill COUNT`."""

from __future__ import annotations

import sys

from benchmarks.peers.with_dramatiq.app import send

if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        send.send(number)
    print("{}")
