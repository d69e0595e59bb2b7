"""What the simulator accepted: one fsynced JSON line per message, on disk before the sender is told.

Called by the simulator's servers; read by people and by checks that must not believe the service's own books.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One acceptance. ``message_id`` is Chaski's own where the wire carries it; ``time`` is in UTC."""

    time: str
    provider: str
    account: str
    recipient: str
    message_id: str | None
    provider_message_id: str
    body_sha256: str


class Ledger:
    """Appends to ``path``. Entries that arrive while the disk is busy share the next fsync."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        #: How many were accepted, by provider.
        self.accepted: Counter[str] = Counter()

    async def append(self, entry: Entry) -> None:
        """Return once ``entry`` is on disk. Raises ``OSError`` where it cannot be kept."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((json.dumps(asdict(entry)).encode() + b"\n", written))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await asyncio.shield(written)
        self.accepted[entry.provider] += 1

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        if self._flusher is not None:
            await self._flusher
        os.close(self._file)

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
            except OSError as error:
                for _, written in batch:
                    written.set_exception(error)
            else:
                for _, written in batch:
                    written.set_result(None)

    def _write(self, lines: bytes) -> None:
        view = memoryview(lines)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)
