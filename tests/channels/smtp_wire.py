"""A mail server that says at each verb what a test tells it, on the plain socket server of `wire`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.channels.wire import Line

FRIENDLY = {
    "greeting": "220 mail.example ESMTP",
    "EHLO": "250-mail.example\r\n250-SIZE 10485760\r\n250 8BITMIME",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 Go ahead",
    "dot": "250 2.0.0 Ok: queued as 4F1A2",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
}

#: What EHLO is answered by a server that takes several commands at once (RFC 2920), and by one that does not.
PIPELINING = FRIENDLY["EHLO"].replace("250-SIZE", "250-PIPELINING\r\n250-SIZE")
MANNERS = {"one by one": FRIENDLY["EHLO"], "at once": PIPELINING}


class Act(StrEnum):
    """What a server does instead of answering."""

    DROP = "drop"
    RESET = "reset"
    HANG = "hang"


@dataclass
class Mailserver:
    """A script of `wire.Server`. ``verbs`` is all that was asked, ``mails`` what came before each final dot.

    ``replies`` is by verb; a list is used up from its front and its last one stays. Once a command of an envelope was
    refused those after it are out of place (RFC 5321, 4.1.4), unless the server is ``gullible``.
    """

    replies: Mapping[str, str | Act | list[str | Act]] = field(default_factory=dict)
    verbs: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    gullible: bool = False
    _refused: bool = False

    async def __call__(self, line: Line) -> None:
        """One session."""
        verb = "greeting"
        while reply := await self._answers(line, verb):
            if verb == "DATA" and reply.startswith("354"):
                await self._mail(line)
                verb = "dot"
                continue
            asked = (await line.reader.readline()).decode()
            if not asked:
                return
            verb = asked.split()[0].upper()
            self.verbs.append(verb)
            self.lines.append(asked.rstrip("\r\n"))

    def _next(self, verb: str) -> str | Act:
        reply = self.replies.get(verb, FRIENDLY.get(verb, "502 5.5.1 Not here"))
        if not isinstance(reply, list):
            return reply
        return reply.pop(0) if len(reply) > 1 else reply[0]

    def _in_order(self, verb: str) -> str | Act:
        if self._refused and verb in ("RCPT", "DATA") and not self.gullible:
            return "503 5.5.1 Out of order"
        reply = self._next(verb)
        if verb in ("MAIL", "RCPT"):
            self._refused = isinstance(reply, str) and not reply.startswith("2")
        return reply

    async def _answers(self, line: Line, verb: str) -> str:
        """What was said, empty where that was the end."""
        reply = self._in_order(verb)
        if reply is Act.RESET:
            line.reset()
        if reply is Act.HANG:
            await line.silence()
        if isinstance(reply, Act):
            return ""
        await line.send(reply.encode() + b"\r\n")
        return "" if verb == "QUIT" or reply.startswith("421") else reply

    async def _mail(self, line: Line) -> None:
        self.mails.append(await line.reader.readuntil(b"\r\n.\r\n"))
