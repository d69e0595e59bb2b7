"""An SMSC on a plain socket that does exactly what a test tells it. It has the gateway's own codec; tests/doubles has another."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from channels.smpp_gateway import pdu
from channels.smpp_gateway.pdu import RESPONSE, Command, Pdu


def text(value: str) -> bytes:
    """A C-octet string."""
    return value.encode() + b"\0"


def delivery(
    message: bytes, *, esm_class: int = 0, source: str = "56912345678", coding: int = 0, tlvs: bytes = b""
) -> bytes:
    """The body of a ``deliver_sm``."""
    addresses = b"\1\1" + text(source) + b"\5\0" + text("Shop")
    head = (
        text("") + addresses + bytes((esm_class, 0, 0)) + text("") + text("") + bytes((0, 0, coding, 0, len(message)))
    )
    return head + message + tlvs


def parameter(tag: int, value: bytes) -> bytes:
    """An optional parameter."""
    return struct.pack(">HH", tag, len(value)) + value


@dataclass
class Session:
    """One connection, the SMSC's end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    smsc: Smsc
    answers: dict[int, asyncio.Future[Pdu]] = field(default_factory=dict)

    def answer(self, come: Pdu, status: int = 0, body: bytes = b"") -> None:
        self.writer.write(Pdu(come.command | RESPONSE, come.sequence, status, body).written())

    async def ask(self, command: int, body: bytes = b"") -> Pdu:
        """Send a request and wait for its answer."""
        sequence = next(self.smsc.numbers)
        self.answers[sequence] = asyncio.get_running_loop().create_future()
        self.writer.write(Pdu(command, sequence, body=body).written())
        async with asyncio.timeout(10):
            return await self.answers[sequence]

    async def deliver(self, body: bytes) -> int:
        """Deliver it; the status that it is answered with."""
        return (await self.ask(Command.DELIVER_SM, body)).status

    def cut(self) -> None:
        self.writer.transport.abort()


OnSubmit = Callable[[Session, Pdu], Awaitable[None]]


async def accepts(session: Session, come: Pdu) -> None:
    """Takes it under the next id."""
    session.answer(come, body=text(f"id-{next(session.smsc.ids)}"))


def refuses(status: int) -> OnSubmit:
    """Says no to everything."""

    async def script(session: Session, come: Pdu) -> None:
        session.answer(come, status)

    return script


async def silent(_session: Session, _come: Pdu) -> None:
    """Takes it, perhaps, and does not say so."""


async def cuts(session: Session, _come: Pdu) -> None:
    """Reads the message and is gone."""
    session.cut()


def in_turn(*scripts: OnSubmit) -> OnSubmit:
    """Each message meets the next of ``scripts``; the last one stays."""
    left = list(scripts)

    async def script(session: Session, come: Pdu) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(session, come)

    return script


@dataclass
class Smsc:
    """``on_submit`` and ``bind_status`` may be changed at any time."""

    port: int = 0
    bind_status: int = 0
    answers_enquiries: bool = True
    on_submit: OnSubmit = accepts
    sessions: list[Session] = field(default_factory=list)
    binds: list[bytes] = field(default_factory=list)
    submitted: list[Pdu] = field(default_factory=list)
    enquiries: int = 0
    unbinds: int = 0
    ids: count[int] = field(default_factory=lambda: count(1))
    numbers: count[int] = field(default_factory=lambda: count(1))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def started(cls, port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Smsc]:
        """One while the block runs."""
        smsc = cls()
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(smsc._serve(Session(reader, writer, smsc)))
            tasks.add(task)

        listening = await asyncio.start_server(accepted, "127.0.0.1", port, ssl=tls)
        smsc.port = listening.sockets[0].getsockname()[1]
        try:
            yield smsc
        finally:
            listening.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, condition: Callable[[Smsc], object]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(10):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def bound(self, sessions: int = 1) -> Session:
        """The newest of at least so many sessions that are up."""
        await self.until(lambda smsc: len(smsc.sessions) >= sessions)
        return self.sessions[-1]

    async def _serve(self, session: Session) -> None:
        try:
            while True:
                await self._take(session, await pdu.read(session.reader))
                self._changed.set()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            if session in self.sessions:
                self.sessions.remove(session)
            session.writer.close()
            self._changed.set()

    async def _take(self, session: Session, come: Pdu) -> None:
        if come.is_response:
            session.answers.pop(come.sequence).set_result(come)
        elif come.command == Command.BIND_TRANSCEIVER:
            self.binds.append(come.body)
            session.answer(come, self.bind_status, text("smsc"))
            if not self.bind_status:
                self.sessions.append(session)
        elif come.command == Command.SUBMIT_SM:
            self.submitted.append(come)
            self._changed.set()
            await self.on_submit(session, come)
        elif come.command == Command.ENQUIRE_LINK:
            self.enquiries += 1
            if self.answers_enquiries:
                session.answer(come)
        elif come.command == Command.UNBIND:
            self.unbinds += 1
            session.answer(come)
