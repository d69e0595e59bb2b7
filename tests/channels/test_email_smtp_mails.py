"""E-mail by SMTP: what arrives, as the standard library reads it behind a server that nobody here wrote."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.smtp import Envelope

from channels.base import (
    ContentRefused,
    Outbound,
    RecipientRefused,
)
from tests.channels.contract import MESSAGE_ID
from tests.channels.postbox import FROM, Inbox, account, failed, mail, mailhost, over_tls
from tests.channels.smtp_wire import Mailserver
from tests.channels.wire import Server


class TestOnTheWire:
    async def received(self, outbound: Outbound, **changes: str) -> tuple[Envelope, Any]:
        """The envelope, and the mail as the standard library reads it."""
        inbox = Inbox()
        async with mailhost(inbox, enable_SMTPUTF8=True) as port:
            provider = over_tls(port, "none", **changes)
            await provider.send(outbound)
            await provider.close()
        [envelope] = inbox.envelopes
        content = envelope.original_content
        assert content is not None
        return envelope, message_from_bytes(content, policy=policy.default)

    async def test_a_mail_arrives_as_it_was_meant(self) -> None:
        text = "¡Hola!\n.\n..two dots\n.leading\n" + "long " * 400 + "\nend"
        envelope, seen = await self.received(mail(text=text, html="<p>¡Hola!</p>", subject="Tu pedido 📦 va en camino"))
        assert (envelope.mail_from, envelope.rcpt_tos) == ("hello@shop.example", ["customer@example.com"])
        assert str(seen["Subject"]) == "Tu pedido 📦 va en camino"
        assert (str(seen["From"]), str(seen["To"])) == (FROM, "customer@example.com")
        assert seen["Message-ID"] == f"<{MESSAGE_ID}@shop.example>"
        assert seen.get_body(("plain",)).get_content().splitlines() == text.splitlines()
        assert seen.get_body(("html",)).get_content().strip() == "<p>¡Hola!</p>"
        assert not seen.defects

    async def test_dots_at_line_starts_survive_in_plain_ascii(self) -> None:
        _, seen = await self.received(mail(text=".\n..\n.x\r\nend."))
        assert seen.get_content() == ".\r\n..\r\n.x\r\nend.\r\n"

    async def test_bounces_go_to_an_address_that_names_the_message(self) -> None:
        envelope, seen = await self.received(mail(), envelope_from="bounce+{message_id}@shop.example")
        assert envelope.mail_from == f"bounce+{MESSAGE_ID}@shop.example"
        assert str(seen["From"]) == FROM

    async def test_the_messages_reply_to_comes_before_the_accounts(self) -> None:
        _, own = await self.received(mail(), reply_to="desk@shop.example")
        _, asked = await self.received(
            mail(options={"reply_to": "Ana <ana@shop.example>"}), reply_to="desk@shop.example"
        )
        assert (own["Reply-To"], asked["Reply-To"]) == ("desk@shop.example", "Ana <ana@shop.example>")

    async def test_an_address_of_another_alphabet_goes_where_the_server_can_take_it(self) -> None:
        envelope, seen = await self.received(mail(to="jürgen@example.com"))
        assert envelope.rcpt_tos == ["jürgen@example.com"]
        assert envelope.smtp_utf8
        assert str(seen["To"]) == "jürgen@example.com"

    async def test_a_domain_of_another_alphabet_goes_everywhere(self) -> None:
        envelope, _ = await self.received(mail(to="info@bücher.example"))
        assert envelope.rcpt_tos == ["info@xn--bcher-kva.example"]

    async def test_an_address_of_another_alphabet_is_refused_where_the_server_cannot_take_it(
        self, server: Server
    ) -> None:
        error = await failed(server, {}, to="jürgen@example.com")
        assert (type(error), error.code) == (RecipientRefused, "smtputf8_missing")

    async def test_the_size_is_announced(self, server: Server) -> None:
        server.script = session = Mailserver()
        provider = account(server)
        await provider.send(mail())
        await provider.close()
        [size] = [row.rpartition("SIZE=")[2] for row in session.lines if row.startswith("MAIL")]
        assert int(size) == len(session.mails[0]) - len(b".\r\n")

    async def test_what_cannot_be_a_mail_is_refused_before_anything_is_sent(self, server: Server) -> None:
        for changes in ({"subject": "a\nBcc: x@y.example"}, {"options": {"headers": {"X-A\nBcc": "x@y.example"}}}):
            with pytest.raises(ContentRefused):
                await account(server).send(mail(**changes))
        with pytest.raises(RecipientRefused):
            await account(server).send(mail(to="a@b.example>\r\nRCPT TO:<c@d.example"))
        assert server.connections == 0

    async def test_a_name_on_the_bounce_address_stays_out_of_the_envelope(self) -> None:
        envelope, _ = await self.received(mail(), envelope_from="Bounces <bounce+{message_id}@bücher.example>")
        assert envelope.mail_from == f"bounce+{MESSAGE_ID}@xn--bcher-kva.example"
