"""A TCP proxy that misbehaves on demand, one before each server of the system under test. Runs on a thread of its own.

What it does to bytes: pass them on, hold them (a network that swallows), delay them, reset connections, or cut one at a
chosen place in the stream. Everything is undone by ``heal``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import uvloop

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 65_536


class Way(StrEnum):
    """The direction of bytes."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


@dataclass(slots=True)
class Cut:
    """Reset the connection when ``pattern`` passes ``way``: before it is passed on, or just after. ``times`` is left.

    With ``beside`` only where that passes together with it; with ``following`` only where all of that has passed on the same
    connection, either way, since the last ``pattern``.
    """

    way: Way
    pattern: bytes
    before: bool
    times: int = 1
    following: tuple[bytes, ...] = ()
    beside: bytes = b""


class _Loop:
    """One event loop on a thread, shared by all proxies of a test run."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


class Proxy:
    """127.0.0.1:``port`` stands for ``target``, a (host, port). A context manager; its methods are for any thread."""

    _shared: _Loop | None = None

    def __init__(self, port: int, target: tuple[str, int]) -> None:
        self.port = port
        self.target = self._usual = target
        self.passed = 0
        self._delay = 0.0
        self._refusing = False
        self._cuts: list[Cut] = []
        self._open: set[asyncio.StreamWriter] = set()
        if Proxy._shared is None:
            Proxy._shared = _Loop()
        self._loop = Proxy._shared

    def __enter__(self) -> Self:
        self._loop.run(self._listen())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.run(self._close())

    # -- what it can be told

    def heal(self) -> None:
        """Pass everything on again, to the usual target; what was held goes on its way."""
        if self.target != self._usual:
            self.lead_to(self._usual)
        self._call(self._heal)

    def lead_to(self, target: tuple[str, int]) -> None:
        """Stand for another server from now on: what is open to the old one is reset."""
        self.target = target
        self.reset()

    def hold(self) -> None:
        """Take connections and bytes, and pass nothing on, like a network that swallows packets."""
        self._call(self._gate.clear)

    def delay(self, seconds: float) -> None:
        """Pass each chunk on so much later."""
        self._delay = seconds

    def refuse(self) -> None:
        """Reset what is open and whatever comes."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Reset what is open now; new connections are served."""
        self._call(lambda: [_reset(writer) for writer in list(self._open)])

    def cut_at(
        self,
        way: Way,
        pattern: bytes,
        *,
        before: bool,
        times: int = 1,
        following: tuple[bytes, ...] = (),
        beside: bytes = b"",
    ) -> Cut:
        """Reset the connection on which ``pattern`` passes ``way``; for the next ``times``. Gives what counts down."""
        cut = Cut(way, pattern, before, times, following, beside)
        self._call(lambda: self._cuts.append(cut))
        return cut

    # -- how it does it

    def _call(self, work: Callable[[], object]) -> None:
        async def on_loop() -> None:
            work()

        self._loop.run(on_loop())

    def _heal(self) -> None:
        self._delay, self._refusing = 0.0, False
        self._cuts.clear()
        self._gate.set()

    async def _listen(self) -> None:
        self._gate = asyncio.Event()
        self._gate.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)

    async def _close(self) -> None:
        self._heal()
        self._server.close()
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            return _reset(writer)
        self._open.add(writer)
        try:
            await self._gate.wait()
            beyond, server = await asyncio.open_connection(*self.target)
        except OSError:
            self._open.discard(writer)
            return _reset(writer)
        self._open.add(server)
        try:
            said = bytearray()
            await asyncio.gather(
                self._pump(reader, server, writer, Way.TO_SERVER, said),
                self._pump(beyond, writer, server, Way.TO_CLIENT, said),
            )
        finally:
            for each in (writer, server):
                self._open.discard(each)
                each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        way: Way,
        said: bytearray,
    ) -> None:
        with suppress(OSError, RuntimeError):  # uvloop says with a RuntimeError that a connection was reset meanwhile
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._gate.wait()
                self.passed += len(data)
                cut = self._cut_for(way, data, said)
                if cut is None or not cut.before:
                    writer.write(data)
                    await writer.drain()
                if cut is not None:
                    _end_without_a_word(back if way is Way.TO_SERVER else writer)
                    writer.close()
                    return
        with suppress(OSError, RuntimeError):
            writer.write_eof()

    def _cut_for(self, way: Way, data: bytes, said: bytearray) -> Cut | None:
        """The cut to be made at ``data``; ``said`` is what passed on this connection, kept while a cut waits."""
        waiting = [cut for cut in self._cuts if cut.times > 0]
        here = [cut for cut in waiting if cut.way is way and cut.pattern in data and cut.beside in data]
        for cut in here:
            if all(each in said for each in cut.following):
                cut.times -= 1
                return cut
        said += data
        if here or not waiting:
            said.clear()
        return None


def _end_without_a_word(client: asyncio.StreamWriter) -> None:
    """The client's side is reset; the server reads what it got to its end."""
    _reset(client)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:  # it may have gone by itself meanwhile
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport = writer.transport
    transport.abort()
