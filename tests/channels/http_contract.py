"""How a provider over HTTP must class what servers do, right and wrong: what its test inherits besides `contract`."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest

from channels.base import (
    Accepted,
    InDoubt,
    NotSent,
    Provider,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from tests.channels import wire
from tests.channels.contract import ProviderContract
from tests.channels.wire import Flood, Script, Server, answer, answers

WAITS = [
    (("Retry-After: 7",), 7),
    (("Retry-After: 0",), 0),
    (("retry-after: 99999999999999999999",), 86_400),
    ((), None),
    (("Retry-After: soon",), None),
    (("Retry-After: -5",), None),
    (("Retry-After: 1.5",), None),
]
SHORT = 0.3
RUBBISH = {
    "a page": b"<html><body>It works!</body></html>",
    "nothing": b"",
    "half an object": b'{"sid": "SM',
    "a list": b"[1, 2, 3]",
    "another object": b'{"status": "fine"}',
    "no text": b"\xff\xfe\x00\x01",
    "a deep list": b"[" * 50_000,
}


class HttpContract(ProviderContract):
    """For providers over HTTP with the option ``base_url``: every way in which the other side can fail."""

    #: What the vendor documents for a message that it took, and the status it comes with.
    accepted_status: ClassVar[int] = 200
    accepted_body: ClassVar[bytes]
    provider_message_id: ClassVar[str]
    #: False where any 2xx is acceptance, whatever the body says.
    reads_the_answer: ClassVar[bool] = True
    #: Seconds for one call: far more than a busy machine needs, and shortened by tests that wait for the end of it.
    patience: float = 5.0

    def at(self, url: str, http: HttpClient) -> Provider:
        """The provider with its vendor at ``url``."""
        provider = self.made(http, base_url=url)
        provider.call_seconds = self.patience
        return provider

    async def failed(self, server: Server, http: HttpClient, script: Script, url: str = "") -> SendError:
        """What one send to ``server`` raises."""
        server.script = script
        with pytest.raises(SendError) as caught:
            await self.at(url or server.url, http).send(self.outbound())
        secrets = [self.settings.get(option.name) for option in self.provider.options if option.secret]
        assert not [secret for secret in secrets if secret and secret in str(caught.value)]
        return caught.value

    @property
    def accepted(self) -> bytes:
        """The vendor's yes."""
        return answer(self.accepted_status, self.accepted_body, "Content-Type: application/json")

    async def test_an_accepted_message_gives_the_vendors_id(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        given = await self.at(server.url, http).send(self.outbound())
        assert isinstance(given, Accepted)
        assert given.provider_message_id == self.provider_message_id
        assert len(server.requests) == 1

    async def test_a_refused_connection_is_not_sent(self, http: HttpClient) -> None:
        async with Server.started() as gone:
            url = gone.url
        with pytest.raises(NotSent) as caught:
            await self.at(url, http).send(self.outbound())
        assert caught.value.code == "refused"

    async def test_a_name_without_an_address_is_not_sent(
        self, server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(*_: Any, **__: Any) -> None:
            raise OSError(-2, "Name or service not known")

        monkeypatch.setattr("socket.getaddrinfo", unknown)
        error = await self.failed(server, http, wire.hangs, "https://vendor.example")
        assert (type(error), error.code) == (NotSent, "dns")

    async def test_a_name_that_is_none_is_not_sent(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, wire.hangs, f"https://{'x' * 64}.example")
        assert type(error) is NotSent

    async def test_a_certificate_that_nobody_trusts_is_not_sent(
        self, http: HttpClient, tls_context: ssl.SSLContext
    ) -> None:
        async with Server.started(tls_context) as strange:
            error = await self.failed(strange, http, answers(self.accepted))
        assert (type(error), error.code, strange.requests) == (NotSent, "tls", [])

    async def test_a_server_without_tls_where_tls_is_due_is_not_sent(self, server: Server, http: HttpClient) -> None:
        self.patience = SHORT
        error = await self.failed(server, http, wire.once(b"SSH-2.0-x\r\n"), server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    async def test_a_tls_handshake_that_never_ends_is_not_sent(self, server: Server, http: HttpClient) -> None:
        async def silent(line: wire.Line) -> None:
            await line.silence()

        self.patience = SHORT
        error = await self.failed(server, http, silent, server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    async def test_silence_is_in_doubt_in_time_and_frees_the_slot(self, server: Server, http: HttpClient) -> None:
        self.patience = SHORT
        begun = time.monotonic()
        error = await self.failed(server, http, wire.hangs)
        assert (type(error), error.code) == (InDoubt, "timeout")
        assert time.monotonic() - begun < 1.5
        assert len(server.requests) == 1
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize("part", ["status", "headers", "body", "continue"])
    async def test_an_answer_that_drips_is_in_doubt_in_time(self, part: str, server: Server, http: HttpClient) -> None:
        self.patience = SHORT
        begun = time.monotonic()
        drop = {
            "status": b"HTTP/1.1 200 " + b"O" * 100,
            "headers": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100,
            "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
            "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
        }[part]
        error = await self.failed(server, http, wire.drips(drop, 0.004))
        assert type(error) is InDoubt
        assert time.monotonic() - begun < 1.5

    async def test_a_reset_before_anything_was_read_is_never_taken_for_acceptance(
        self, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, wire.resets_before_reading)
        assert type(error) in (NotSent, InDoubt)

    @pytest.mark.parametrize("script", [wire.resets_after_reading, wire.closes_after_reading])
    async def test_an_end_after_the_request_was_read_is_in_doubt(
        self, script: Script, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, script)
        assert (type(error), error.code) == (InDoubt, "connection_lost")

    async def test_an_answer_that_breaks_off_is_in_doubt(self, server: Server, http: HttpClient) -> None:
        status = 200 if self.accepted_status == 204 else self.accepted_status  # a 204 ends with its head
        data = answer(status, self.accepted_body + b" " * 20_000)
        assert type(await self.failed(server, http, wire.stops_within(data))) is InDoubt

    async def test_an_answer_that_is_not_http_is_in_doubt(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, wire.once(b"220 mail.example ESMTP\r\n"))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    async def test_a_failure_of_the_vendor_is_transient(self, status: int, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(answer(status, b"<h1>Sorry</h1>", "Retry-After: 9")))
        assert isinstance(error, Transient)
        assert error.retry_after == 9

    @pytest.mark.parametrize(("headers", "wait"), WAITS)
    async def test_a_429_is_a_throttle_with_the_vendors_own_wait(
        self, headers: tuple[str, ...], wait: float | None, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(429, b"slow down", *headers)))
        assert isinstance(error, Throttled)
        assert error.retry_after == wait

    async def test_a_429_may_name_a_date(self, server: Server, http: HttpClient) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        error = await self.failed(server, http, answers(answer(429, b"", f"Retry-After: {date}")))
        assert isinstance(error, Throttled)
        assert error.retry_after == pytest.approx(90, abs=3)

    @pytest.mark.parametrize("kind", RUBBISH)
    async def test_a_success_that_cannot_be_read_is_in_doubt_where_it_is_read_at_all(
        self, kind: str, server: Server, http: HttpClient
    ) -> None:
        if not self.reads_the_answer:
            server.script = answers(answer(200, RUBBISH[kind]))
            assert await self.at(server.url, http).send(self.outbound())
            return
        error = await self.failed(server, http, answers(answer(self.accepted_status, RUBBISH[kind])))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    async def test_a_body_without_an_end_costs_no_memory(self, server: Server, http: HttpClient) -> None:
        flood = Flood()
        server.script = flood
        try:
            await self.at(server.url, http).send(self.outbound())
        except InDoubt:
            assert self.reads_the_answer
        await server.until(lambda there: there.open == 0)
        assert flood.sent < 16 * 1024 * 1024  # what the sockets hold between the two, and no more

    async def test_headers_without_an_end_cost_no_memory(self, server: Server, http: HttpClient) -> None:
        flood = Flood(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"y" * 65_536 + b"\r\n")
        assert type(await self.failed(server, http, flood)) is InDoubt
        await server.until(lambda there: there.open == 0)
        assert flood.sent < 16 * 1024 * 1024

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int, server: Server, http: HttpClient) -> None:
        async with Server.started() as elsewhere:
            elsewhere.script = answers(self.accepted)
            error = await self.failed(server, http, answers(answer(status, b"", f"Location: {elsewhere.url}/")))
            assert not isinstance(error, (InDoubt, Transient, Throttled))
            assert (len(server.requests), elsewhere.connections) == (1, 0)

    async def test_messages_share_a_connection(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        provider = self.at(server.url, http)
        for _ in range(3):
            await provider.send(self.outbound())
        assert (server.connections, len(server.requests)) == (1, 3)

    async def test_a_kept_connection_that_the_vendor_has_closed_is_replaced(
        self, server: Server, http: HttpClient
    ) -> None:
        server.script = wire.once(self.accepted)
        provider = self.at(server.url, http)
        for _ in range(3):
            await provider.send(self.outbound())  # each over a connection that ends behind the answer
        assert (server.connections, len(server.requests)) == (3, 3)

    async def test_cookies_are_not_kept(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(self.accepted_status, self.accepted_body, "Set-Cookie: who=me"))
        provider = self.at(server.url, http)
        await provider.send(self.outbound())
        await provider.send(self.outbound())
        assert b"cookie" not in server.requests[1].lower()

    async def test_a_proxy_of_the_environment_is_ignored(
        self, server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound())
        assert len(server.requests) == 1
