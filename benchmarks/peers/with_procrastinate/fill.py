"""Makes the schema and defers COUNT jobs: `python -m benchmarks.peers.with_procrastinate.fill COUNT`."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.with_procrastinate.app import app, send


async def main() -> None:
    """Defer them."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        count = int(sys.argv[1])
        for start in range(0, count, 500):
            await send.batch_defer_async(*({"number": number} for number in range(start, min(start + 500, count))))


if __name__ == "__main__":
    asyncio.run(main())
    print("{}")
