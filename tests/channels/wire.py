"""A server on a plain socket that does exactly what a test tells it, and the ways in which HTTP servers go wrong.

A ``Script`` gets each accepted connection as a ``Line``; what it does not do does not happen.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_RESET = struct.pack("ii", 1, 0)


@dataclass
class Line:
    """One accepted connection, the server's end. ``number`` counts from 1."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    server: Server

    async def request(self) -> bytes:
        """One whole HTTP request with a Content-Length, kept in ``server.requests``; empty at the end of the line."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = 0
        for row in head.lower().split(b"\r\n"):
            if row.startswith(b"content-length:"):
                length = int(row.partition(b":")[2])
        whole = head + (await self.reader.readexactly(length) if length else b"")
        self.server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        """Write ``data``."""
        self.writer.write(data)
        await self.writer.drain()

    async def silence(self) -> None:
        """Say nothing until the other side hangs up."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass

    def reset(self) -> None:
        """End the connection by a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


async def _silence(line: Line) -> None:
    await line.silence()


@dataclass
class Server:
    """Listens on 127.0.0.1; ``script`` may be changed at any time and holds for the connections after that."""

    port: int = 0
    script: Script = _silence
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    tls: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https://localhost' if self.tls else 'http://127.0.0.1'}:{self.port}"

    @classmethod
    @asynccontextmanager
    async def started(cls, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        """A server while the block runs; what is open at the end is cut off."""
        served = cls(tls=tls is not None)
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(served._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listening = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
        served.port = listening.sockets[0].getsockname()[1]
        try:
            yield served
        finally:
            listening.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, condition: Callable[[Server], bool], seconds: float = 5) -> None:
        """Wait for something to be true of the server."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        line = Line(reader, writer, self.connections, self)
        try:
            with suppress(ConnectionError):
                await self.script(line)
        finally:
            self.open -= 1
            self._changed.set()
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """One HTTP answer as bytes."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def answers(data: bytes) -> Script:
    """Every request on every connection gets ``data``."""

    async def script(line: Line) -> None:
        while await line.request():
            await line.send(data)

    return script


def in_turn(*data: bytes) -> Script:
    """Each request of all connections gets the next of ``data``."""
    left = list(data)

    async def script(line: Line) -> None:
        while await line.request():
            await line.send(left.pop(0))

    return script


def once(data: bytes) -> Script:
    """The first request of a connection gets ``data``; then the line is closed."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(data)

    return script


async def hangs(line: Line) -> None:
    """Reads the request and never answers."""
    await line.request()
    await line.silence()


async def resets_before_reading(line: Line) -> None:
    """Gone before anything is read."""
    line.reset()


async def resets_after_reading(line: Line) -> None:
    """Has the request, and dies."""
    await line.request()
    line.reset()


async def closes_after_reading(line: Line) -> None:
    """Has the request, and hangs up in good order."""
    await line.request()


def drips(data: bytes, seconds: float = 0.05) -> Script:
    """A byte at a time, so that no single read takes long."""

    async def script(line: Line) -> None:
        await line.request()
        for byte in data * 1000:
            await line.send(bytes([byte]))
            await asyncio.sleep(seconds)

    return script


def stops_within(data: bytes) -> Script:
    """Announces a whole answer, gives half of it and resets."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(data[: len(data) // 2])
        await asyncio.sleep(0.02)
        line.reset()

    return script


@dataclass
class Flood:
    """A success whose body never ends; ``sent`` is how many bytes the client let us write."""

    head: bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece: bytes = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    limit: int = 256 * 1024 * 1024
    sent: int = 0

    async def __call__(self, line: Line) -> None:
        await line.request()
        await line.send(self.head)
        while self.sent < self.limit:
            await line.send(self.piece)
            self.sent += len(self.piece)
