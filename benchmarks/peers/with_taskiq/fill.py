"""Publishes COUNT tasks: `python -m benchmarks.peers.with_taskiq.fill COUNT`."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.with_taskiq.app import broker, send


async def main() -> None:
    """Publish them."""
    await broker.startup()
    for number in range(int(sys.argv[1])):
        await send.kiq(number)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
    print("{}")
