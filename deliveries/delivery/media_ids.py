"""Media ids in one worker process: looked up for many messages at once, obtained by one for all who want the same.

Called by ``deliveries.delivery.sending``, on the engine's loop; implements ``channels.kept.Keeper``. What vendors said is shared
by all processes through ``kept_media``, which a thread reads and writes: no transaction is open while a vendor answers, and an
upload goes on when the message that began it can wait no longer (docs/adr/0023-vendors-keep-files.md).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import psycopg
import structlog

from channels.attachments import Attachment
from channels.base import InDoubt, NotSent, Provider, SendError, Transient
from channels.kept import UPLOAD_SECONDS, MediaId, Upload
from channels.written import unwatched
from deliveries.conf import timings
from deliveries.delivery import media_rows
from deliveries.delivery.enclosures import Enclosures
from deliveries.delivery.media_rows import Found, Key
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

#: After that the table is asked again: another process may have found out anew.
KNOWN_SECONDS = 60.0
KNOWN_LIMIT = 10_000
#: Between two looks whether another process has finished the upload.
LOOK_AGAIN_SECONDS = 0.5
CLOSE_SECONDS = 2.0  # for what is still to be written
#: For how long finding out is one process's own: longer than any upload, and than any message.
OWN_SECONDS = 90.0
#: Whoever has the vendor's refusal waits no longer for the database.
FORGET_SECONDS = 5.0
#: Files that a vendor takes without telling an id.
NAMELESS, NAMELESS_SECONDS = 1_000, 600.0


class MediaIds:
    """What one process knows, and who is finding out. Belongs to one loop."""

    def __init__(self, files: Enclosures) -> None:
        self._files = files
        self._known: OrderedDict[Key, tuple[str, float]] = OrderedDict()
        self._asked: dict[Key, asyncio.Future[Found]] = {}
        self._uploads: dict[Key, asyncio.Task[str]] = {}
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._asking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._nameless: dict[Key, float] = {}

    def kept(self, attachment: Attachment, account_id: int, provider: Provider, until: float) -> Attachment:
        """``attachment`` with what knows its media id; as it is where it is no file of ours.

        A message waits for it until ``until`` (the loop's time).
        """
        if attachment.file_id is None:
            return attachment
        key = Key(attachment.file_id, account_id, provider.media_place(attachment))
        return replace(attachment, keeper=Kept(self, key, attachment.size or 0, until))

    async def close(self) -> None:
        """End the uploads under way, and let other processes know: they need not wait."""
        uploads = list(self._uploads.values())
        for task in uploads:
            task.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def uploaded(self, key: Key, size: int, upload: Upload, until: float) -> str:
        """As ``Keeper`` has it; ``size`` in bytes."""
        if known := self._remembered(key):
            return known
        task, mine = self._uploads.get(key), False
        if task is None:
            task, mine = asyncio.ensure_future(self._obtained(key, size, upload)), True
            self._uploads[key] = task
            task.add_done_callback(partial(self._done, key))
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(task)
        except TimeoutError:
            raise _under_way("its file is still being uploaded") from None
        except NotSent as error:
            if mine:
                raise
            # One failure of the vendor's, not as many as there are messages that waited.
            raise _under_way(f"its file was being uploaded for another message ({error.code})") from error

    @asynccontextmanager
    async def first(self, key: Key, until: float) -> AsyncIterator[str]:
        """As ``Keeper`` has it. Where another process goes first, one of this process's messages does, too."""
        if known := self._remembered(key):
            yield known
            return
        if time.monotonic() < self._nameless.get(key, 0.0):
            yield ""
            return
        turn = self._turns.setdefault(key, asyncio.Lock())
        has_turn = await _acquired(turn, until)
        found = Found(self._remembered(key), mine=False)
        try:
            if has_turn:
                async with _before(until):
                    found = await self._looked_up(key)
            if has_turn and found.media_id:
                turn.release()
                has_turn = False
            yield found.media_id
            if found.mine and not self._remembered(key):
                self._has_no_name(key)
        finally:
            if has_turn:
                turn.release()
            if found.mine and not self._remembered(key):
                self._later(partial(media_rows.release, key=key))

    def learn(self, key: Key, media: MediaId) -> None:
        """As ``Keeper`` has it."""
        self._remember(key, media.id)
        self._later(partial(media_rows.keep, key=key, media=media))

    async def forget(self, key: Key, media_id: str) -> bool:
        """As ``Keeper`` has it."""
        if self._remembered(key) == media_id:
            del self._known[key]
        try:
            async with _before(asyncio.get_running_loop().time() + FORGET_SECONDS * timings().scale):
                gone = await self._files.ask(partial(media_rows.forget, key=key, media_id=media_id))
        except psycopg.Error as error:
            raise _unavailable(error) from error
        log.info("media_id_refused", file=str(key.file_id), account=key.account_id, forgotten=gone)
        return gone

    def _has_no_name(self, key: Key) -> None:
        """The vendor took the file and told no id: nobody need wait for the next one's answer."""
        if len(self._nameless) >= NAMELESS:
            self._nameless.clear()
        self._nameless[key] = time.monotonic() + NAMELESS_SECONDS

    async def _obtained(self, key: Key, size: int, upload: Upload) -> str:
        """From the table, from another process that is at it, or from the vendor."""
        try:
            async with asyncio.timeout(UPLOAD_SECONDS * timings().scale):
                while True:
                    found = await self._looked_up(key)
                    if found.media_id:
                        return found.media_id
                    if found.mine:
                        return await self._upload(key, size, upload)
                    await asyncio.sleep(LOOK_AGAIN_SECONDS * timings().scale)
        except TimeoutError:
            raise _failed("it took too long") from None

    async def _upload(self, key: Key, size: int, upload: Upload) -> str:
        """An upload that may have reached the vendor is no doubt: the message had not left."""
        until = asyncio.get_running_loop().time() + UPLOAD_SECONDS * timings().scale
        try:
            with unwatched():
                async with self._files.hold(size, until):
                    media = await upload()
            self.learn(key, media)
        except (InDoubt, Transient) as error:
            raise _failed(f"{error.code}: {error.detail}") from error
        except SendError:
            raise
        except Exception as error:
            log.exception("upload_raised", file=str(key.file_id), account=key.account_id)
            raise _failed(type(error).__name__) from error
        finally:
            if not self._remembered(key):
                self._later(partial(media_rows.release, key=key))
        log.info("file_uploaded", file=str(key.file_id), account=key.account_id, size=size)
        return media.id

    async def _looked_up(self, key: Key) -> Found:
        """Asked with all others that were asked for in the meantime, in one statement."""
        if known := self._remembered(key):
            return Found(known, mine=False)
        asked = self._asked.get(key)
        if asked is None:
            if not self._asked:
                self._start(self._ask())
            asked = self._asked[key] = asyncio.get_running_loop().create_future()
        found = await asyncio.shield(asked)
        if found.media_id:
            self._remember(key, found.media_id)
        return found

    async def _ask(self) -> None:
        async with self._asking:
            await asyncio.sleep(0)  # the calls of one claim begin together
            asked, self._asked = self._asked, {}
            work = partial(media_rows.take, keys=list(asked), seconds=OWN_SECONDS * timings().scale)
            try:
                found = await self._files.ask(work)
            except BaseException as error:
                for future in asked.values():
                    future.set_exception(_unavailable(error))
                    future.exception()  # whoever waits hears it; without anybody left it is no news
                if not isinstance(error, psycopg.Error):
                    raise
                return
            for key, future in asked.items():
                future.set_result(found[key])

    def _remembered(self, key: Key) -> str:
        media_id, known_at = self._known.get(key, ("", 0.0))
        return media_id if time.monotonic() - known_at <= KNOWN_SECONDS * timings().scale else ""

    def _remember(self, key: Key, media_id: str) -> None:
        self._known[key] = (media_id, time.monotonic())
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def _later(self, work: Callable[[Cursor], None]) -> None:
        self._start(self._written(work))

    async def _written(self, work: Callable[[Cursor], None]) -> None:
        try:
            await self._files.ask(work)
        except psycopg.Error as error:
            log.warning("media_id_not_written", error=type(error).__name__)  # another process uploads once more

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    def _done(self, key: Key, task: asyncio.Task[str]) -> None:
        self._uploads.pop(key, None)
        if not task.cancelled():
            task.exception()  # as above


@dataclass(frozen=True, slots=True)
class Kept:
    """The ``Keeper`` of one file for one message."""

    ids: MediaIds
    key: Key
    size: int
    until: float

    async def uploaded(self, upload: Upload) -> str:
        """As ``Keeper`` has it."""
        return await self.ids.uploaded(self.key, self.size, upload, self.until)

    def first(self) -> AbstractAsyncContextManager[str]:
        """As ``Keeper`` has it."""
        return self.ids.first(self.key, self.until)

    def learn(self, media: MediaId) -> None:
        """As ``Keeper`` has it."""
        self.ids.learn(self.key, media)

    async def forget(self, media_id: str) -> bool:
        """As ``Keeper`` has it."""
        return await self.ids.forget(self.key, media_id)


async def _acquired(turn: asyncio.Lock, until: float) -> bool:
    try:
        async with asyncio.timeout_at(until):
            return await turn.acquire()
    except TimeoutError:
        return False


def _under_way(what: str) -> NotSent:
    return NotSent("upload_under_way", f"{what}; the message comes again")


@asynccontextmanager
async def _before(until: float) -> AsyncIterator[None]:
    """The database may take its time: what has not left by ``until`` (the loop's time) has surely not left."""
    try:
        async with asyncio.timeout_at(until):
            yield
    except TimeoutError as error:
        raise _unavailable(error) from None


def _unavailable(error: BaseException) -> NotSent:
    return NotSent("file_unavailable", f"what is known of its file could not be read ({type(error).__name__})")


def _failed(why: str) -> NotSent:
    return NotSent("upload_failed", f"its file could not be uploaded ({why}); the message comes again")
