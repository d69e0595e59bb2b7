"""The dialogue with a mail server that takes an envelope's commands at once, and with those that do not keep the order."""

from __future__ import annotations

import pytest

from channels import smtp_dialogue
from channels.base import ContentRefused, NotSent, RecipientRefused
from channels.smtp_connections import Connections
from channels.smtp_connections import Server as Mailhost
from channels.smtp_dialogue import Envelope
from tests.channels.postbox import SHORT, account, mail
from tests.channels.smtp_wire import FRIENDLY, MANNERS, PIPELINING, Act, Mailserver
from tests.channels.wire import Line, Server

GONE = "550 5.1.1 No such user"


class Counting(Mailserver):
    """Counts what has come besides a command by the time that it is read."""

    behind: int = 0

    async def _answers(self, line: Line, verb: str) -> str:
        if verb in ("MAIL", "RCPT"):
            self.behind += len(line.reader._buffer)  # type: ignore[attr-defined]
        return await super()._answers(line, verb)


@pytest.mark.parametrize(("ehlo", "ahead"), [(MANNERS["one by one"], False), (PIPELINING, True)])
async def test_commands_go_ahead_of_their_answers_only_where_the_server_takes_them(
    ehlo: str, ahead: bool, server: Server
) -> None:
    server.script = session = Counting({"EHLO": ehlo})
    provider = account(server)
    for _ in range(3):
        await provider.send(mail())
    assert (session.behind > 0) is ahead
    assert len(session.mails) == 3
    await provider.close()


class Hesitant(Mailserver):
    """Reads an envelope to its end before it answers, all of it by bytes or in one go."""

    by_bytes: bool = False

    async def __call__(self, line: Line) -> None:
        for said, verb in (("greeting", b"EHLO"), ("EHLO", b"MAIL")):
            await line.send(FRIENDLY[said].encode() + b"\r\n")
            assert (await line.reader.readline()).startswith(verb)
        for _ in range(2):
            await line.reader.readuntil(b"DATA\r\n")
            answers = "\r\n".join([FRIENDLY["MAIL"], "250-2.1.5 one", "250 2.1.5 two", FRIENDLY["DATA"], ""]).encode()
            for piece in [answers[i : i + 1] for i in range(len(answers))] if self.by_bytes else [answers]:
                await line.send(piece)
            await self._mail(line)
            await line.send(b"250 2.0.0 Ok\r\n")


@pytest.mark.parametrize("by_bytes", [False, True])
async def test_answers_are_told_apart_however_they_arrive(
    by_bytes: bool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FRIENDLY, "EHLO", PIPELINING)
    server.script = session = Hesitant()
    session.by_bytes = by_bytes
    provider = account(server)
    for _ in range(2):
        await provider.send(mail())
    assert (server.connections, len(session.mails)) == (1, 2)
    await provider.close()


async def test_a_server_that_wants_a_mail_for_nobody_gets_none(server: Server) -> None:
    server.script = session = Mailserver({"EHLO": PIPELINING, "RCPT": [GONE, "250 Ok"]}, gullible=True)
    provider = account(server)
    with pytest.raises(RecipientRefused):
        await provider.send(mail())
    await server.until(lambda there: there.open == 0)
    await provider.send(mail())
    assert (server.connections, len(session.mails)) == (2, 1)
    await provider.close()


class Leaving(Mailserver):
    """Refuses the recipient, and then does something else than answer DATA."""

    then: Act = Act.DROP

    def _next(self, verb: str) -> str | Act:
        if verb == "DATA":
            return self.then
        return super()._next(verb)


@pytest.mark.parametrize("then", Act)
async def test_why_it_was_refused_is_told_although_the_server_leaves(
    then: Act, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_dialogue, "REPLY_SECONDS", SHORT)
    server.script = session = Leaving({"EHLO": PIPELINING, "RCPT": GONE}, gullible=True)
    session.then = then
    provider = account(server)
    # A reset may take what was said before it away from us.
    with pytest.raises((RecipientRefused, NotSent) if then is Act.RESET else RecipientRefused):
        await provider.send(mail())
    await server.until(lambda there: there.open == 0)
    await provider.close()


async def test_words_that_nobody_asked_for_end_a_session(server: Server) -> None:
    server.script = session = Mailserver({"dot": f"{FRIENDLY['dot']}\r\n421 4.3.2 Closing", "EHLO": PIPELINING})
    provider = account(server)
    for _ in range(3):
        await provider.send(mail())
    assert (server.connections, len(session.mails)) == (3, 3)
    await provider.close()


async def test_a_refusal_in_the_middle_of_a_mail_is_told(server: Server) -> None:
    class Impatient(Mailserver):
        async def _mail(self, line: Line) -> None:
            await line.reader.readexactly(100_000)
            await line.send(b"552 5.3.4 Too big\r\n")
            line.writer.write_eof()
            await line.silence()

    server.script = Impatient({"EHLO": PIPELINING})
    provider = account(server)
    with pytest.raises(ContentRefused):
        await provider.send(mail(text=("x" * 900 + "\n") * 18_000))
    await provider.close()


async def test_a_command_cannot_carry_another(server: Server) -> None:
    server.script = session = Mailserver()
    connections = Connections(Mailhost("127.0.0.1", server.port, "none", "shop.example"), 1)
    with pytest.raises(ValueError, match="control character"):
        async with connections.begun(Envelope("a@b.example", "c@d.example>\r\nRCPT TO:<x@y.example", 1, False), 1.0):
            pass
    assert "RCPT" not in session.verbs
    await connections.close()
