"""E-mail by SMTP: what each verb's answer means, and where doubt begins."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from channels.base import (
    Accepted,
    ContentRefused,
    InDoubt,
    Misconfigured,
    NotSent,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
)
from channels.email_smtp import Smtp
from tests.channels.contract import MESSAGE_ID, ProviderContract
from tests.channels.postbox import SETTINGS, account, failed, mail
from tests.channels.smtp_wire import Act, Mailserver
from tests.channels.wire import Line, Server

pytestmark = pytest.mark.usefixtures("manner")


class TestSmtp(ProviderContract):
    provider = Smtp
    channel = "email"
    to = "customer@example.com"
    settings = SETTINGS
    message = {"subject": "Order 7"}


class TestVerdicts:
    async def test_an_accepted_mail_has_our_message_id_and_the_servers_words(self, server: Server) -> None:
        server.script = Mailserver()
        provider = account(server)
        accepted = await provider.send(mail())
        assert accepted == Accepted(f"<{MESSAGE_ID}@shop.example>", "2.0.0 Ok: queued as 4F1A2")
        await provider.close()

    @pytest.mark.parametrize("verb", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
    @pytest.mark.parametrize("act", Act)
    async def test_what_breaks_before_the_final_dot_is_not_sent(self, verb: str, act: Act, server: Server) -> None:
        error = await failed(server, {verb: act})
        assert type(error) is NotSent
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize("act", Act)
    async def test_what_breaks_after_the_final_dot_is_in_doubt(self, act: Act, server: Server) -> None:
        begun = time.monotonic()
        error = await failed(server, {"dot": act})
        assert type(error) is InDoubt
        assert error.code == ("timeout" if act is Act.HANG else "connection_lost")
        assert time.monotonic() - begun < 2
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize(
        "answer", ["Moin!", "354 Go on", "250", "999 What?", "-12 x", "\xff\xfe", "250-" + "x" * 40_000]
    )
    async def test_an_answer_to_the_dot_that_is_not_smtp_is_in_doubt(self, answer: str, server: Server) -> None:
        server.script = Mailserver({"dot": answer})
        provider = account(server)
        if answer == "250":
            await provider.send(mail())  # the text is optional
        else:
            with pytest.raises(InDoubt):
                await provider.send(mail())
        await provider.close()

    async def test_a_connection_that_breaks_in_the_middle_of_a_mail_is_not_sent(self, server: Server) -> None:
        class Impatient(Mailserver):
            async def _mail(self, line: Line) -> None:
                await line.reader.readexactly(100_000)
                line.reset()

        server.script = Impatient()
        provider = account(server)
        with pytest.raises(NotSent):
            await provider.send(mail(text=("x" * 900 + "\n") * 18_000))
        await provider.close()

    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "dot"])
    @pytest.mark.parametrize("reply", ["450 4.2.1 Busy", "451 4.3.0 Local error", "452 4.2.2 Full", "450 Later"])
    async def test_a_4yz_took_nothing_and_concerns_one_recipient(self, verb: str, reply: str, server: Server) -> None:
        error = await failed(server, {verb: reply})
        assert isinstance(error, Throttled)
        assert error.scope is Scope.RECIPIENT
        assert error.retry_after

    @pytest.mark.parametrize(
        "replies",
        [
            {"greeting": "421 4.3.2 Too many connections"},
            {"greeting": "450 4.3.2 Not now"},
            {"EHLO": "421 4.7.0 Slow down"},
            {"MAIL": "421 4.7.28 Unusual rate"},
            {"RCPT": "421 4.3.0 Closing"},
            {"dot": "421 4.3.0 Closing"},
            {"RCPT": "452 4.3.1 Insufficient system storage"},
        ],
    )
    async def test_a_server_that_is_busy_as_a_whole_rests_the_account(
        self, replies: Mapping[str, str], server: Server
    ) -> None:
        error = await failed(server, replies)
        assert isinstance(error, Throttled)
        assert error.scope is Scope.ACCOUNT

    @pytest.mark.parametrize(
        ("reply", "attempt", "seconds"),
        [
            ("451 4.7.1 Greylisted, try again in 7 seconds", 1, 7),
            ("450 4.2.0 Greylisted, please retry in 5 minutes", 1, 300),
            ("451 4.7.1 Greylisting in action, please come back in 00:05:10", 1, 310),
            ("451 4.7.1 Please wait for 1h", 1, 3600),
            ("450 4.2.0 Recipient address rejected: Greylisted", 1, 300),
            ("451 4.7.1 Not yet", 1, 300),
            ("452 4.2.2 Mailbox full", 1, 3600),
            ("451 4.3.0 Local error", 1, 2),
            ("451 4.3.0 Local error", 5, 32),
            ("451 4.3.0 Local error", 40, 3600),
            ("451 4.3.0 Error in 3 of 5 steps", 1, 2),
            ("451 4.7.1 Try in 999999h", 1, 86_400),
        ],
    )
    async def test_the_wait_is_the_servers_or_grows_with_each_attempt(
        self, reply: str, attempt: int, seconds: float, server: Server
    ) -> None:
        error = await failed(server, {"RCPT": reply}, attempt=attempt)
        assert isinstance(error, Throttled)
        assert error.retry_after == seconds

    @pytest.mark.parametrize(
        ("verb", "reply", "expected", "suppress"),
        [
            ("RCPT", "550 5.1.1 No such user", RecipientRefused, True),
            ("RCPT", "550 5.1.2 No such domain", RecipientRefused, True),
            ("RCPT", "550 5.1.10 Null MX", RecipientRefused, True),
            ("RCPT", "553 5.1.3 Bad syntax", RecipientRefused, False),
            ("RCPT", "551 Not local", RecipientRefused, False),
            ("RCPT", "550 5.2.1 Disabled", RecipientRefused, False),
            ("RCPT", "550 Rejected", RecipientRefused, False),
            ("RCPT", "550 5.7.1 Members only", RecipientRefused, False),
            ("RCPT", "550 5.1.1-ish", RecipientRefused, False),
            ("RCPT", "550 4.1.1 Contradicts itself", RecipientRefused, False),
            ("dot", "550 5.1.1 No such user", RecipientRefused, True),
            ("dot", "554 5.7.1 Looks like spam", ContentRefused, None),
            ("dot", "550 5.7.0 Dangerous attachment", ContentRefused, None),
            ("dot", "554 Rejected", ContentRefused, None),
            ("dot", "552 5.3.4 Too big", ContentRefused, None),
            ("DATA", "554 No valid recipients", ContentRefused, None),
            ("MAIL", "552 Too big", ContentRefused, None),
            ("MAIL", "552 5.3.4 Too big", ContentRefused, None),
            ("MAIL", "550 5.1.1 Who are you", Misconfigured, None),
            ("MAIL", "553 Sender refused", Misconfigured, None),
            ("RCPT", "554 5.7.1 Relay access denied", Misconfigured, None),
            ("RCPT", "550 5.7.1 Unable to relay", Misconfigured, None),
            ("RCPT", "530 5.7.0 Authentication required", Misconfigured, None),
            ("RCPT", "535 5.7.8 Authentication credentials invalid", Misconfigured, None),
            ("RCPT", "550 5.1.8 Bad sender domain", Misconfigured, None),
            ("dot", "550 5.7.26 Unauthenticated mail", Misconfigured, None),
            ("dot", "550 5.7.25 No PTR record", Misconfigured, None),
            ("dot", "550 5.7.509 Access denied, DMARC", Misconfigured, None),
            ("RCPT", "550 5.7.606 Access denied, banned sending IP", Misconfigured, None),
            ("greeting", "554 5.7.1 Go away", Misconfigured, None),
            ("greeting", "521 No mail here", Misconfigured, None),
        ],
    )
    async def test_a_5yz_is_final_and_says_for_whom(
        self, verb: str, reply: str, expected: type[SendError], suppress: bool | None, server: Server
    ) -> None:
        error = await failed(server, {verb: reply})
        assert type(error) is expected
        assert getattr(error, "suppress", None) is suppress

    @pytest.mark.parametrize("reply", ["552 5.2.2 Mailbox full", "552 Exceeded storage allocation"])
    async def test_a_full_mailbox_is_tried_again_and_then_given_up_without_suppression(
        self, reply: str, server: Server
    ) -> None:
        first = await failed(server, {"RCPT": reply}, attempt=1)
        last = await failed(server, {"RCPT": reply}, attempt=4)
        assert isinstance(first, Throttled)
        assert isinstance(last, RecipientRefused)
        assert not last.suppress

    async def test_the_code_is_the_enhanced_one_and_the_words_name_no_recipient(self, server: Server) -> None:
        error = await failed(server, {"RCPT": "550-5.1.1 <customer@example.com>\r\n550 5.1.1 does not exist"})
        assert error.code == "5.1.1"
        assert error.detail == "550 at rcpt: 5.1.1 <[recipient]> 5.1.1 does not exist"

    @pytest.mark.parametrize("reply", ["Moin!", "999 What?", "100 Hm"])
    @pytest.mark.parametrize("verb", ["greeting", "MAIL", "RCPT", "DATA"])
    async def test_a_server_that_does_not_speak_smtp_got_nothing(self, verb: str, reply: str, server: Server) -> None:
        error = await failed(server, {verb: reply})
        assert type(error) is NotSent
