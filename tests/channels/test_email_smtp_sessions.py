"""E-mail by SMTP: how the server is reached, and how sessions are kept and replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
import uvloop

from channels import smtp_connections
from channels.base import (
    InDoubt,
    NotSent,
    RecipientRefused,
    Throttled,
)
from channels.email_smtp import Smtp
from tests.channels.postbox import SHORT, account, mail
from tests.channels.smtp_wire import Act, Mailserver
from tests.channels.wire import Line, Server

pytestmark = pytest.mark.usefixtures("manner")


class TestConnecting:
    async def test_a_refused_connection_is_not_sent(self) -> None:
        async with Server.started() as gone:
            pass
        with pytest.raises(NotSent) as caught:
            await account(gone).send(mail())
        assert caught.value.code == "refused"

    @pytest.mark.parametrize("host", ["mail.example", "x" * 64 + ".example", "a..b"])
    async def test_a_name_without_an_address_is_not_sent(
        self, host: str, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lookup(name: str, *_: Any, **__: Any) -> None:
            name.encode("idna")
            raise OSError(-2, "Name or service not known")

        monkeypatch.setattr("socket.getaddrinfo", lookup)
        with pytest.raises(NotSent):
            await account(server, host=host).send(mail())

    async def test_the_next_address_is_tried_where_one_refuses(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.script = Mailserver()
        monkeypatch.setattr("channels.dns._addresses", lambda *_: [(2, "127.0.0.9"), (2, "127.0.0.1")])
        provider = account(server, host="mail.example")
        await provider.send(mail())
        await provider.close()

    async def test_a_name_server_that_hangs_does_not_hold_the_slot(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("channels.dns._addresses", lambda *_: time.sleep(1.0))
        provider = account(server, host="mail.example")
        provider.call_seconds = SHORT
        begun = time.monotonic()
        with pytest.raises(NotSent):
            await provider.send(mail())
        assert time.monotonic() - begun < 0.9
        await provider.close()


def kept(provider: Smtp) -> list[Any]:
    """The sessions that are kept."""
    return provider._connections._idle


class TestSessions:
    async def test_mails_share_a_session_and_need_four_commands_each(self, server: Server) -> None:
        server.script = kept = Mailserver()
        provider = account(server)
        for _ in range(3):
            await provider.send(mail())
        assert server.connections == 1
        assert kept.verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3]
        await provider.close()
        await server.until(lambda there: there.open == 0)
        assert kept.verbs[-1] == "QUIT"

    async def test_a_session_is_reset_after_a_refusal_and_used_again(self, manner: str, server: Server) -> None:
        server.script = kept = Mailserver({"RCPT": ["550 5.1.1 No such user", "250 Ok"]})
        provider = account(server)
        with pytest.raises(RecipientRefused):
            await provider.send(mail())
        await provider.send(mail())
        assert server.connections == 1
        refused = ["MAIL", "RCPT", "DATA"] if manner == "at once" else ["MAIL", "RCPT"]
        assert kept.verbs == ["EHLO", *refused, "RSET", "MAIL", "RCPT", "DATA"]
        await provider.close()

    @pytest.mark.parametrize(
        "end",
        [
            {"MAIL": ["250 Ok", Act.DROP, "250 Ok"]},
            {"MAIL": ["250 Ok", Act.RESET, "250 Ok"]},
            {"MAIL": ["250 Ok", "421 4.4.2 Idle too long", "250 Ok"]},
            {"MAIL": ["250 Ok", "452 4.5.3 Too many mails in this session", "250 Ok"]},
            {"MAIL": ["250 Ok", "Moin!", "250 Ok"]},
        ],
    )
    async def test_a_kept_session_that_is_over_is_replaced_unseen(self, end: Mapping[str, Any], server: Server) -> None:
        server.script = sessions = Mailserver({name: list(replies) for name, replies in end.items()})
        provider = account(server)
        await provider.send(mail())
        await provider.send(mail())
        assert (server.connections, len(sessions.mails)) == (2, 2)
        await provider.close()

    async def test_a_session_that_has_taken_our_sender_and_ends_is_not_replaced_unseen(self, server: Server) -> None:
        server.script = session = Mailserver({"RCPT": ["250 Ok", Act.DROP, "250 Ok"]})
        provider = account(server)
        await provider.send(mail())
        with pytest.raises(NotSent):
            await provider.send(mail())
        assert (server.connections, len(session.mails)) == (1, 1)
        await provider.close()

    async def test_a_session_that_refuses_our_sender_is_ended(self, server: Server) -> None:
        server.script = Mailserver({"MAIL": "451 4.3.1 Full"})
        provider = account(server)
        with pytest.raises(Throttled):
            await provider.send(mail())
        await server.until(lambda there: there.open == 0)
        assert kept(provider) == []

    async def test_a_kept_session_that_the_server_closed_while_idle_is_replaced_unseen(self, server: Server) -> None:
        class Hasty(Mailserver):
            async def _answers(self, line: Line, verb: str) -> str:
                reply = await super()._answers(line, verb)
                return "" if verb == "dot" else reply  # and hangs up

        server.script = session = Hasty()
        provider = account(server)
        for _ in range(3):
            await provider.send(mail())
            await server.until(lambda there: there.open == 0)
        assert (server.connections, len(session.mails)) == (3, 3)
        await provider.close()

    async def test_a_kept_session_that_is_silent_costs_no_doubt(self, server: Server) -> None:
        server.script = Mailserver({"MAIL": ["250 Ok", Act.HANG, "250 Ok"]})
        provider = account(server)
        provider.call_seconds = SHORT
        await provider.send(mail())
        with pytest.raises(NotSent):
            await provider.send(mail())
        await provider.close()

    async def test_a_session_ends_after_its_share_of_mails(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smtp_connections, "MAILS_PER_SESSION", 2)
        server.script = Mailserver()
        provider = account(server)
        for _ in range(5):
            await provider.send(mail())
        assert server.connections == 3
        await provider.close()

    async def test_an_idle_session_ends_by_itself(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(smtp_connections, "IDLE_SECONDS", 0.05)
        server.script = Mailserver()
        provider = account(server)
        await provider.send(mail())
        await server.until(lambda there: there.open == 0)
        assert kept(provider) == []
        await provider.send(mail())
        await provider.close()

    async def test_no_more_sessions_are_open_than_the_account_allows(self, server: Server) -> None:
        most = 0

        class Counting(Mailserver):
            async def __call__(self, line: Line) -> None:
                nonlocal most
                most = max(most, server.open)
                await super().__call__(line)

        server.script = session = Counting()
        provider = account(server, connections="3")
        await asyncio.gather(*(provider.send(mail()) for _ in range(20)))
        assert (most, len(session.mails)) == (3, 20)
        await provider.close()

    async def test_a_mail_that_finds_no_free_session_in_time_is_not_sent(self, server: Server) -> None:
        server.script = Mailserver({"dot": Act.HANG})
        provider = account(server, connections="1")
        provider.call_seconds = SHORT
        given = await asyncio.gather(provider.send(mail()), provider.send(mail()), return_exceptions=True)
        assert {type(error) for error in given} == {InDoubt, NotSent}
        await provider.close()

    async def test_a_cancelled_call_leaves_no_session_behind(self, server: Server) -> None:
        server.script = Mailserver({"dot": Act.HANG})
        provider = account(server)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await provider.send(mail())
        await server.until(lambda there: there.open == 0)
        assert kept(provider) == []

    async def test_closing_waits_for_nobody_and_ends_what_is_given_back_later(self, server: Server) -> None:
        server.script = Mailserver()
        provider = account(server)
        sending = asyncio.ensure_future(provider.send(mail()))
        await asyncio.sleep(0.01)
        await provider.close()
        await asyncio.wait([sending])
        await server.until(lambda there: there.open == 0)


def test_the_other_event_loop_does_as_well() -> None:
    """uvloop's transports share no base class with asyncio's."""

    async def accepted_and_doubtful() -> None:
        async with Server.started() as server:
            server.script = Mailserver({"dot": ["250 Ok", Act.DROP]})
            provider = account(server)
            await provider.send(mail())
            with pytest.raises(InDoubt):
                await provider.send(mail())
            await server.until(lambda there: there.open == 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(accepted_and_doubtful())
