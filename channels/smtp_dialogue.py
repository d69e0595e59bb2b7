"""The dialogue of a logged-in SMTP session: envelopes, mails and the server's answers.

Called by ``channels.smtp_connections`` and the SMTP provider, on the asyncio loop. aiosmtplib opens a session (EHLO,
STARTTLS, login) and would wait for the answer to each command before it writes the next: three journeys before a mail
may begin. RFC 2920 allows one, where the server announces PIPELINING, as mail servers do; and the answers after the
first would be lost on aiosmtplib, so the connection is taken over from it. Raises aiosmtplib's errors.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)

#: For the answers to an envelope. Long for commands, short beside the attempt's whole time.
REPLY_SECONDS = 30.0
#: An answer has some lines of at most 512 octets (RFC 5321, 4.5.3.1.5); what goes on is no answer.
_REPLY_LIMIT = 32 * 1024
_UNREADABLE = -1
_GO_AHEAD = 354
#: What leaves together with the final dot: a short mail takes one journey then, and of a long one only the end is in doubt.
_TAIL = 16 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOT_AT_LINE_START = re.compile(rb"(?m)^\.")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What comes before the mail: both addresses, its size in bytes, whether an address needs SMTPUTF8."""

    sender: str
    to: str
    size: int
    utf8: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's code and words; several lines are joined by line feeds."""

    code: int
    text: str

    @property
    def yes(self) -> bool:
        """Done as asked (RFC 5321, 4.2.1)."""
        return 200 <= self.code < 300


class Dialogue(asyncio.Protocol):
    """One session, used by one mail at a time. What the server says unasked ends it."""

    def __init__(self, transport: asyncio.Transport, extensions: frozenset[str]) -> None:
        self._transport = transport
        self._extensions = extensions
        self._loop = asyncio.get_running_loop()
        self._said = bytearray()
        self._tail = b""
        self._expected = 0
        self._unsettled = False
        #: Did the server say yes to the sender of the last envelope?
        self.took_sender = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._lost = False
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Nothing is left unanswered, and the connection stands."""
        return not (self._lost or self._expected or self._said or self._transport.is_closing())

    async def begin(self, envelope: Envelope) -> None:
        """MAIL FROM, RCPT TO and DATA, until the server wants the mail; after a refusal RSET comes before them.

        Raises ``SMTPSenderRefused``, ``SMTPRecipientRefused`` or ``SMTPDataError`` by the first command that was
        refused, ``SMTPNotSupported`` where an address needs SMTPUTF8 and the server does not know it,
        ``SMTPResponseException`` where the answer is not SMTP, and ``SMTPServerDisconnected`` or ``TimeoutError``.
        """
        commands = list(self._commands(envelope))
        replies: list[Reply] = []
        self._unsettled = True
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._converse(commands, replies)
        except (SMTPException, TimeoutError):
            self.drop()
            if refusal := _refusal(commands, replies, envelope):
                raise refusal from None
            raise
        finally:
            self.took_sender = _took_sender(commands, replies)
        if refusal := _refusal(commands, replies, envelope):
            if replies[-1].code == _GO_AHEAD:
                self.drop()  # it would take a mail for nobody
            raise refusal
        self._unsettled = False

    async def hand_over(self, content: bytes) -> None:
        """The mail but for its last part; returns when the kernel has taken all before that.

        Raises ``SMTPServerDisconnected``, or ``SMTPDataError`` where the server said why it ended the connection.
        """
        self._expected += 1
        stuffed = _DOT_AT_LINE_START.sub(b"..", content)
        begin, self._tail = stuffed[:-_TAIL], stuffed[-_TAIL:]
        if begin:
            self._write(begin)
            if self._room is not None:
                await self._room
        if self._lost:
            said = self._read()
            raise SMTPDataError(said.code, said.text) if said else SMTPServerDisconnected("ended within the mail")

    def finish(self) -> None:
        """The last part and the final dot: from now on the server may have the mail.

        Raises ``SMTPServerDisconnected``: it has not.
        """
        self._write(self._tail + b".\r\n")

    async def verdict(self) -> Reply:
        """The answer to the mail, waited for as long as the caller does; ``SMTPDataError`` where it is not a yes."""
        reply = await self._reply()
        if not reply.yes:
            raise SMTPDataError(reply.code, reply.text)
        return reply

    def leave(self) -> None:
        """Say goodbye without waiting for the answer."""
        if self.usable:
            self._transport.write(b"QUIT\r\n")
        self._transport.close()

    def drop(self) -> None:
        """End the connection with whatever is still to be written."""
        if not self._lost:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """For the transport."""
        self._said += data
        if not self._expected:
            self.drop()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """For the transport."""
        self._lost = True
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """For the transport."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """For the transport."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _commands(self, envelope: Envelope) -> Iterator[str]:
        if self._unsettled:
            yield "RSET"
        size = f" SIZE={envelope.size}" if "size" in self._extensions else ""
        utf8 = " SMTPUTF8" if envelope.utf8 else ""
        if utf8 and "smtputf8" not in self._extensions:
            raise SMTPNotSupported("the server does not know SMTPUTF8")
        yield f"MAIL FROM:<{envelope.sender}>{size}{utf8}"
        yield f"RCPT TO:<{envelope.to}>"
        yield "DATA"

    def _ask(self, commands: Sequence[str]) -> None:
        if any(_CONTROL.search(command) for command in commands):
            raise ValueError("a control character in an SMTP command")
        self._expected += len(commands)
        self._write("".join(f"{command}\r\n" for command in commands).encode())

    async def _converse(self, commands: Sequence[str], replies: list[Reply]) -> None:
        """All commands at once where the server takes that, else one by one until it refuses."""
        if "pipelining" in self._extensions:
            self._ask(commands)
            for _ in commands:
                replies.append(await self._reply())
            return
        for command in commands:
            self._ask([command])
            replies.append(await self._reply())
            if not _granted(command, replies[-1]):
                return

    def _write(self, data: bytes) -> None:
        if self._lost or self._transport.is_closing():
            raise SMTPServerDisconnected("the connection has ended")
        self._transport.write(data)

    async def _reply(self) -> Reply:
        while (found := self._read()) is None:
            if self._lost:
                raise SMTPServerDisconnected("the connection ended before an answer")
            self._news = self._loop.create_future()
            await self._news
        self._expected -= 1
        return found

    def _read(self) -> Reply | None:
        """The next whole answer, taken out of what was said."""
        begin, lines = 0, []
        while (end := self._said.find(b"\n", begin)) >= 0:
            line = bytes(self._said[begin:end])
            lines.append(line[4:].strip())
            if not line[:3].isdigit():
                raise SMTPResponseException(_UNREADABLE, f"not an SMTP answer: {line.decode(errors='replace')}")
            begin = end + 1
            if line[3:4] != b"-":
                del self._said[:begin]
                return Reply(int(line[:3]), b"\n".join(lines).decode(errors="surrogateescape"))
        if len(self._said) > _REPLY_LIMIT:
            raise SMTPResponseException(_UNREADABLE, "an answer without an end")
        return None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _granted(command: str, reply: Reply) -> bool:
    """RFC 5321, 4.2.1: 2yz, and 354 for DATA."""
    return reply.code == _GO_AHEAD if command == "DATA" else reply.yes


def _took_sender(commands: Sequence[str], replies: Sequence[Reply]) -> bool:
    return any(reply.yes for command, reply in zip(commands, replies, strict=False) if command.startswith("MAIL"))


def _refusal(commands: Sequence[str], replies: Sequence[Reply], envelope: Envelope) -> SMTPException | None:
    """The first no: what came after it only follows from it."""
    for command, reply in zip(commands, replies, strict=False):
        if _granted(command, reply):
            continue
        if command == "DATA":
            return SMTPDataError(reply.code, reply.text)
        if command.startswith("RCPT"):
            return SMTPRecipientRefused(reply.code, reply.text, envelope.to)
        return SMTPSenderRefused(reply.code, reply.text, envelope.sender)
    return None
