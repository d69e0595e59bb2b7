"""The server's end of HTTP/2, on h2, for scripts of ``wire.Server``: it does to each request what a test says.

What is not HTTP/2 at all, and what h2 would not let a server say, is written to the line as bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings

from tests.channels.wire import Line, Script


@dataclass
class Request:
    """One request as the server has it."""

    stream: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a server says to one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, body: bytes = b"", **headers: str) -> Answer:
        """With headers by name, hyphens as underscores."""
        return cls(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class Peer:
    """One connection. ``settings`` are what the server says at first; ``reads``: does it let bodies go on?"""

    def __init__(self, line: Line, settings: Mapping[SettingCodes, int], *, reads: bool = True) -> None:
        self.line = line
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(client=False, initial_values=dict(settings))
        self.reads = reads
        self.resets: list[StreamReset] = []
        self._partly: dict[int, Request] = {}
        self._whole: list[Request] = []
        self.over = False

    async def greet(self) -> None:
        """Send the settings."""
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        """Write what h2 has to say."""
        await self.line.send(self.h2.data_to_send())

    async def request(self) -> Request | None:
        """The next whole request; None at the end of the line."""
        while not self._whole and not self.over:
            data = await self.line.reader.read(65_536)
            if not data:
                return None
            self._read(data)
            await self.flush()
        return self._whole.pop(0) if self._whole else None

    async def begun(self) -> int:
        """The number of a request of which something has come, and not all."""
        while not self._partly:
            self._read(await self.line.reader.read(65_536))
            await self.flush()
        return next(iter(self._partly))

    def _read(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                names = [(str(name), str(value)) for name, value in event.headers or ()]
                self._partly[event.stream_id or 0] = Request(event.stream_id or 0, dict(names))
            elif isinstance(event, DataReceived):
                self._partly[event.stream_id or 0].body += event.data or b""
                if self.reads:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, StreamEnded):
                self._whole.append(self._partly.pop(event.stream_id or 0))
            elif isinstance(event, StreamReset):
                self.resets.append(event)
            elif isinstance(event, ConnectionTerminated):
                self.over = True

    async def head(self, request: Request, answer: Answer, *, end: bool = False) -> None:
        """Status and headers of an answer."""
        self.h2.send_headers(request.stream, [(":status", str(answer.status)), *answer.headers.items()], end_stream=end)
        await self.flush()

    async def answer(self, request: Request, answer: Answer) -> None:
        """A whole answer, as far as the client's windows let it go."""
        await self.head(request, answer, end=not answer.body)
        if answer.body:
            self.h2.send_data(request.stream, answer.body, end_stream=True)
            await self.flush()

    async def refuse(self, request: Request, code: ErrorCodes) -> None:
        """RST_STREAM."""
        self.h2.reset_stream(request.stream, code)
        await self.flush()

    async def go_away(self, last: int, code: int = 0) -> None:
        """GOAWAY, as bytes: to h2 it would be the end."""
        await self.line.send(frame(7, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big")))


def frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    """One frame as it is on the wire."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


Act = Callable[[Peer, Request], Awaitable[None]]


@dataclass
class Vendor:
    """A script: greets, and does ``act`` with each request."""

    act: Act
    settings: Mapping[SettingCodes, int] = field(default_factory=dict)
    reads: bool = True
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, line: Line) -> None:
        peer = Peer(line, self.settings, reads=self.reads)
        await peer.greet()
        while (request := await peer.request()) is not None:
            self.requests.append(request)
            line.server.requests.append(request.body)
            await self.act(peer, request)


def answers(answer: Answer) -> Vendor:
    """Every request gets ``answer``."""
    return Vendor(lambda peer, request: peer.answer(request, answer))


def in_turn(*given: Answer) -> Vendor:
    """Each request of all connections gets the next."""
    left = list(given)
    return Vendor(lambda peer, request: peer.answer(request, left.pop(0)))


def refuses(code: ErrorCodes) -> Vendor:
    """Every request is reset."""
    return Vendor(lambda peer, request: peer.refuse(request, code))


async def nothing(peer: Peer, request: Request) -> None:
    """Reads on and never answers."""


async def resets(peer: Peer, request: Request) -> None:
    """Has the request, and dies."""
    peer.line.reset()
    peer.over = True


async def closes(peer: Peer, request: Request) -> None:
    """Has the request, and hangs up in good order."""
    peer.line.writer.close()
    peer.over = True


def says(data: bytes) -> Act:
    """Has the request, and writes ``data`` to the line."""

    async def act(peer: Peer, request: Request) -> None:
        await peer.line.send(data)

    return act


def half(answer: Answer) -> Act:
    """The head of an answer and some of its body, then a reset."""

    async def act(peer: Peer, request: Request) -> None:
        await peer.head(request, answer)
        peer.h2.send_data(request.stream, answer.body[: len(answer.body) // 2])
        await peer.flush()
        await asyncio.sleep(0.02)
        await resets(peer, request)

    return act


@dataclass
class Flood:
    """An act: a body without an end, as fast as the client's windows allow; ``sent`` is how many bytes it let us write."""

    limit: int = 64 * 1024 * 1024
    sent: int = 0

    async def __call__(self, peer: Peer, request: Request) -> None:
        await peer.head(request, Answer.of(200))
        while self.sent < self.limit and not peer.resets:
            room = min(peer.h2.local_flow_control_window(request.stream), peer.h2.max_outbound_frame_size)
            if room:
                peer.h2.send_data(request.stream, b"x" * room)
                self.sent += room
                await peer.flush()
            else:
                peer._read(await peer.line.reader.read(65_536))


def drips(part: str, seconds: float) -> Act:
    """An answer that goes on and on, by a byte of its body, an interim answer or a ping at a time."""

    async def act(peer: Peer, request: Request) -> None:
        if part == "body":
            await peer.head(request, Answer.of(200))
        for _ in range(1000):
            if part == "body":
                await peer.line.send(frame(0, request.stream, b"x"))
            elif part == "continue":
                peer.h2.send_headers(request.stream, [(":status", "103")])
            else:
                peer.h2.ping(b"12345678")
            await peer.flush()
            await asyncio.sleep(seconds)

    return act


def speaks(data: bytes) -> Script:
    """No HTTP/2: says ``data`` as soon as the client has spoken, and nothing more."""

    async def script(line: Line) -> None:
        await line.reader.read(100)
        await line.send(data)
        await line.silence()

    return script
