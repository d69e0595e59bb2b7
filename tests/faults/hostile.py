"""Vendors that misbehave, on plain sockets and on threads of their own, told message by message how.

A message names its fault by a word in its recipient or its text; whatever names none is accepted as its vendor would.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from tests.channels.smtp_wire import FRIENDLY, Act
from tests.channels.wire import Line, Server, answer

T = TypeVar("T")
#: What is done on a line once a request was read from it.
Answer = Callable[[Line, bytes], Awaitable[None]]
_serial = count(1)


@contextmanager
def served(start: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What ``start`` gives, served by an event loop on a thread of its own while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="hostile", daemon=True)
    thread.start()
    stack = AsyncExitStack()
    try:
        yield asyncio.run_coroutine_threadsafe(stack.enter_async_context(start()), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


# -- what a vendor does once it has read a request


def says(data: bytes | Callable[[], bytes]) -> Answer:
    """Answers with ``data``, and goes on."""

    async def act(line: Line, request: bytes) -> None:
        await line.send(data if isinstance(data, bytes) else data())

    return act


def stops_after(data: bytes) -> Answer:
    """Begins an answer and resets."""

    async def act(line: Line, request: bytes) -> None:
        if data:
            await line.send(data)
            await asyncio.sleep(0.02)  # so that it arrives before the reset
        line.reset()

    return act


def drips(data: bytes, seconds: float) -> Answer:
    """A byte at a time without end, so that no single read takes long."""

    async def act(line: Line, request: bytes) -> None:
        for byte in data + b"x" * 10_000:
            await line.send(bytes([byte]))
            await asyncio.sleep(seconds)

    return act


def floods(head: bytes, limit: int = 512 * 1024 * 1024) -> Answer:
    """An answer whose body never ends, as fast as the client takes it."""

    async def act(line: Line, request: bytes) -> None:
        await line.send(head)
        for _ in range(limit // 65_536):
            await line.send(b"x" * 65_536)

    return act


async def hangs(line: Line, request: bytes) -> None:
    """Says nothing until the client hangs up."""
    await line.silence()


async def accepts(line: Line, request: bytes) -> None:
    """Says yes as the vendor whose path was asked."""
    head = request.partition(b"\r\n")[0]
    number = next(_serial)
    if b"/Messages.json" in head:
        await line.send(answer(201, b'{"sid": "SM%032x"}' % number))
    elif b"/sendMessage" in head:
        await line.send(answer(200, b'{"ok": true, "result": {"message_id": %d, "chat": {"id": 1}}}' % number))
    else:
        await line.send(answer(200, b"{}"))


@dataclass
class Vendors:
    """Every HTTP vendor at one port. ``answers`` is by a word of the request; a list is used up, its last one stays.

    ``asked`` counts the requests by word, ``""`` for those that held none.
    """

    server: Server
    answers: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.server.url

    async def __call__(self, line: Line) -> None:
        """One connection."""
        while request := await line.request():
            word = next((word for word in self.answers if word.encode() in request), "")
            self.asked[word] += 1
            await self._next(word)(line, request)
            if line.writer.is_closing():
                return

    def _next(self, word: str) -> Answer:
        found = self.answers.get(word, accepts)
        if not isinstance(found, list):
            return found
        return found.pop(0) if len(found) > 1 else found[0]


@contextmanager
def vendors() -> Iterator[Vendors]:
    """Hostile HTTP vendors while the block runs."""
    with served(Server.started) as server:
        found = Vendors(server)
        server.script = found
        yield found


@dataclass
class Mailroom:
    """A mail server. ``replies`` is by recipient (``""``: by session, before one is known), then by verb.

    A recipient's fault is met once; its next mail is taken. ``stands`` is by verb and stays, in place of what is friendly.
    ``mails`` counts what came before a final dot.
    """

    server: Server
    replies: dict[str, dict[str, str | Act]] = field(default_factory=dict)
    stands: dict[str, str] = field(default_factory=dict)
    mails: Counter[str] = field(default_factory=Counter)

    async def __call__(self, line: Line) -> None:
        """One session, of one mail, so that what is said before MAIL is heard with each."""
        verb, to = "greeting", ""
        while reply := await self._said(line, verb, to):
            if reply.startswith("354"):
                await line.reader.readuntil(b"\r\n.\r\n")
                self.mails[to] += 1
                verb = "dot"
                continue
            asked = (await line.reader.readline()).decode()
            if not asked:
                return
            verb = asked.split()[0].upper()
            if verb == "RCPT":
                to = asked.partition("<")[2].partition(">")[0]

    async def _said(self, line: Line, verb: str, to: str) -> str:
        """Answer; what was said, empty where that was the end."""
        before = verb not in ("RCPT", "DATA", "dot")
        reply = self.replies.get("" if before else to, {}).pop(verb, None) or {**FRIENDLY, **self.stands}.get(
            verb, "502 5.5.1 Not here"
        )
        if reply is Act.RESET:
            line.reset()
        if reply is Act.HANG:
            await line.silence()
        if isinstance(reply, Act):
            return ""
        await line.send(reply.encode() + b"\r\n")
        return "" if verb in ("QUIT", "dot") or reply.startswith("421") else reply


@contextmanager
def mailroom() -> Iterator[Mailroom]:
    """A hostile mail server while the block runs."""
    with served(Server.started) as server:
        found = Mailroom(server)
        server.script = found
        yield found
