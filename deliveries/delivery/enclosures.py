"""The bytes of files that go with the messages under way in one process: read once, kept while there is room, never too many.

Called by ``deliveries.delivery.sending``, on the engine's loop. The database is read in a thread, never by the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from uuid import UUID

import psycopg

from channels.attachments import Carriage, Read
from channels.base import ContentRefused, NotSent, Outbound, Provider
from deliveries.delivery.database import EngineConnection
from deliveries.sql import Cursor

T = TypeVar("T")
SELECT = "SELECT content FROM file WHERE id = %(id)s"
KEPT_BYTES = 64_000_000
#: For calls whose messages enclose files, all of them together. Each file is there as it is and in base64, in pieces and whole.
ROOM_BYTES = 400_000_000
TIMES = 4


class Enclosures:
    """Files by their ids, each read by one at a time. Belongs to one loop."""

    def __init__(self) -> None:
        self._connection = EngineConnection()
        self._thread = ThreadPoolExecutor(1, "chaski-files")
        self._kept: OrderedDict[UUID, bytes] = OrderedDict()
        self._reading: dict[UUID, asyncio.Task[bytes]] = {}
        self._free = ROOM_BYTES
        self._freed = asyncio.Event()

    def reader(self, file_id: UUID) -> Read:
        """What reads the file when it is called."""
        return partial(self.read, file_id)

    async def read(self, file_id: UUID) -> bytes:
        """The file's bytes. Raises ``NotSent`` while the database is away, ``ContentRefused`` for a file that is gone."""
        if file_id in self._kept:
            self._kept.move_to_end(file_id)
            return self._kept[file_id]
        task = self._reading.get(file_id)
        if task is None:
            task = self._reading[file_id] = asyncio.ensure_future(self._fetched(file_id))
            task.add_done_callback(partial(self._done, file_id))
        return await asyncio.shield(task)  # others wait for the same

    @asynccontextmanager
    async def room(self, outbound: Outbound, provider: Provider, deadline: float) -> AsyncIterator[None]:
        """Wait until the process has memory for what ``outbound`` encloses, and hold it for the length of the block.

        Waits no longer than leaves the provider its time until ``deadline`` (the loop's). Raises ``NotSent``.
        """
        enclosed = provider.takes is not None and provider.takes.carriage is Carriage.ENCLOSED
        size = sum(each.size or 0 for each in outbound.attachments) if enclosed else 0
        async with self.hold(size, deadline - provider.call_seconds):
            yield

    @asynccontextmanager
    async def hold(self, size: int, until: float) -> AsyncIterator[None]:
        """Wait until the process has memory for ``size`` bytes on their way, and hold it for the length of the block.

        Waits no longer than ``until`` (the loop's). Raises ``NotSent``.
        """
        needed = min(ROOM_BYTES, TIMES * size)
        await self._take(needed, until)
        try:
            yield
        finally:
            self._free += needed
            self._freed.set()

    async def ask(self, work: Callable[[Cursor], T]) -> T:
        """What ``work`` gives, a few statements about files that are transactions of their own. Raises ``psycopg.Error``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._worked, work)

    def _worked(self, work: Callable[[Cursor], T]) -> T:
        with self._connection.statements() as cursor:
            return work(cursor)

    def close(self) -> None:
        """Give back the connection, once what is under way is done."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)

    async def _take(self, needed: int, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                while self._free < needed:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise NotSent("no_room", "too many files were on their way from this process; it comes again") from None
        self._free -= needed

    async def _fetched(self, file_id: UUID) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            content = await loop.run_in_executor(self._thread, self._select, file_id)
        except psycopg.Error as error:
            raise NotSent("file_unavailable", f"an attached file could not be read ({type(error).__name__})") from error
        if content is None:
            raise ContentRefused("file_gone", f"the attached file {file_id} is not kept any more; send it anew")
        self._keep(file_id, content)
        return content

    def _select(self, file_id: UUID) -> bytes | None:
        with self._connection.statements() as cursor:
            cursor.execute(SELECT, {"id": file_id})
            row = cursor.fetchone()
        return bytes(row[0]) if row else None

    def _keep(self, file_id: UUID, content: bytes) -> None:
        self._kept[file_id] = content
        while sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)

    def _done(self, file_id: UUID, task: asyncio.Task[bytes]) -> None:
        self._reading.pop(file_id, None)
        if not task.cancelled():
            task.exception()  # whoever waited has heard it; without anybody left it is no news
