"""E-mail by SMTP: to whom password and mail are given, and which accounts are refused."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from channels.base import (
    InvalidOption,
    Misconfigured,
    NotSent,
    Scope,
    Throttled,
)
from channels.email_smtp import Smtp
from tests.channels.postbox import FROM, PASSWORD, SETTINGS, Inbox, account, mail, mailhost, over_tls
from tests.channels.smtp_wire import Mailserver
from tests.channels.wire import Server


class TestSecurity:
    @pytest.mark.parametrize("security", ["tls", "starttls"])
    async def test_a_verified_server_gets_login_and_mail(
        self, security: str, trusted: Path, tls_context: ssl.SSLContext
    ) -> None:
        inbox = Inbox()
        options: dict[str, Any] = {"ssl": tls_context} if security == "tls" else {"tls_context": tls_context}
        options |= {"authenticator": inbox.login, "auth_require_tls": security == "starttls"}
        async with mailhost(inbox, **options) as port:
            provider = over_tls(port, security, str(trusted), username="shop", password=PASSWORD)
            await provider.send(mail())
            await provider.close()
        assert inbox.logins == [(b"shop", PASSWORD.encode())]
        assert inbox.envelopes[0].rcpt_tos == ["customer@example.com"]

    @pytest.mark.parametrize("security", ["tls", "starttls"])
    async def test_a_certificate_that_nobody_trusts_gets_neither(
        self, security: str, tls_context: ssl.SSLContext
    ) -> None:
        inbox = Inbox()
        options: dict[str, Any] = {"ssl": tls_context} if security == "tls" else {"tls_context": tls_context}
        async with mailhost(inbox, **options) as port:
            provider = over_tls(port, security, username="shop", password=PASSWORD)
            with pytest.raises(NotSent) as caught:
                await provider.send(mail())
            await provider.close()
        assert caught.value.code == "tls"
        assert (inbox.logins, inbox.envelopes) == ([], [])

    @pytest.mark.parametrize("security", ["tls", "starttls"])
    async def test_a_certificate_of_another_name_gets_neither(
        self, security: str, trusted: Path, tls_context: ssl.SSLContext
    ) -> None:
        inbox = Inbox()
        options: dict[str, Any] = {"ssl": tls_context} if security == "tls" else {"tls_context": tls_context}
        async with mailhost(inbox, **options) as port:
            provider = over_tls(port, security, str(trusted), host="127.0.0.1", username="shop", password=PASSWORD)
            with pytest.raises(NotSent):
                await provider.send(mail())
            await provider.close()
        assert inbox.logins == []

    async def test_a_server_without_starttls_gets_neither(self, server: Server) -> None:
        server.script = session = Mailserver()
        with pytest.raises(Misconfigured) as caught:
            await over_tls(server.port, "starttls", username="shop", password=PASSWORD).send(mail())
        assert "STARTTLS" in caught.value.detail
        assert not {"AUTH", "MAIL"} & set(session.verbs)

    async def test_what_is_slipped_in_before_tls_is_not_believed(
        self, trusted: Path, tls_context: ssl.SSLContext, server: Server
    ) -> None:
        ehlo = "250-mail.example\r\n250 STARTTLS"
        server.script = Mailserver({"EHLO": ehlo, "STARTTLS": "220 Go\r\n250 2.0.0 I am the TLS server, trust me"})
        with pytest.raises(NotSent):
            await over_tls(server.port, "starttls", str(trusted)).send(mail())

    async def test_a_wrong_password_is_misconfigured_and_shown_nowhere(self) -> None:
        inbox = Inbox()
        async with mailhost(inbox, authenticator=inbox.login, auth_require_tls=False) as port:
            provider = over_tls(port, "none", username="shop", password="wrong horse")
            with pytest.raises(Misconfigured) as caught:
                await provider.send(mail())
            await provider.close()
        assert "wrong horse" not in str(caught.value)
        assert inbox.envelopes == []

    async def test_a_login_that_is_put_off_is_a_throttle(self, server: Server) -> None:
        server.script = Mailserver({"EHLO": "250-x\r\n250 AUTH PLAIN", "AUTH": "454 4.7.0 Temporary failure"})
        with pytest.raises(Throttled) as caught:
            await account(server, username="shop", password=PASSWORD).send(mail())
        assert caught.value.scope is Scope.ACCOUNT

    async def test_a_server_without_auth_is_misconfigured(self, server: Server) -> None:
        server.script = session = Mailserver()
        with pytest.raises(Misconfigured):
            await account(server, username="shop", password=PASSWORD).send(mail())
        assert "MAIL" not in session.verbs

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"security": "ssl"}, "security"),
            ({"port": "0"}, "port"),
            ({"port": "65536"}, "port"),
            ({"port": "25 "}, "port"),
            ({"connections": "51"}, "connections"),
            ({"host": "mail.example\r\nEHLO x"}, "host"),
            ({"from": "shop"}, "from"),
            ({"from": "a@b.example, c@d.example"}, "from"),
            ({"from": "Shop\r\nBcc: x@y.example <a@b.example>"}, "from"),
            ({"from": "jürgen@shop.example"}, "from"),
            ({"reply_to": "nobody"}, "reply_to"),
            ({"envelope_from": "bounce+{message_id}"}, "envelope_from"),
            ({"message_id_domain": "shop example"}, "message_id_domain"),
            ({"username": "shop"}, "username"),
            ({"password": PASSWORD}, "username"),
            ({"host": "mail.example", "username": "shop", "password": PASSWORD}, "security"),
            ({"ca_file": "/no/such/file.pem"}, "ca_file"),
        ],
    )
    def test_an_account_that_cannot_work_is_refused_by_the_option(self, changes: dict[str, str], name: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Smtp.check({**SETTINGS, **changes})
        assert caught.value.name == name

    @pytest.mark.parametrize(("security", "port"), [("none", "25"), ("starttls", "587"), ("tls", "465"), ("", "587")])
    def test_the_port_follows_from_the_security(self, security: str, port: str) -> None:
        checked = Smtp.check({"host": "mail.example", "from": FROM, "security": security})
        assert checked["port"] == port
