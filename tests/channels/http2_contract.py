"""How a provider over HTTP/2 must class what servers do, right and wrong: what its test inherits besides `contract`.

The same demands as `http_contract`'s, and those that HTTP/2 brings: requests that the server has surely not processed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest
from h2.errors import ErrorCodes

from channels.base import Accepted, InDoubt, NotSent, Outbound, Provider, SendError, Throttled, Transient
from tests.channels import http2_peer, wire
from tests.channels.contract import ProviderContract
from tests.channels.http2_peer import Answer, Flood, Peer, Request, Vendor, answers
from tests.channels.wire import Line, Script, Server

SHORT = 0.3
WAITS = [("7", 7), ("0", 0), ("99999999999999999999", 86_400), ("", None), ("soon", None), ("-5", None), ("1.5", None)]


class Http2Contract(ProviderContract):
    """For providers over HTTP/2 with the option ``base_url``: every way in which the other side can fail."""

    #: What the vendor documents for a message that it took.
    accepted: ClassVar[Answer]
    provider_message_id: ClassVar[str]
    #: Seconds for one call: far more than a busy machine needs, and shortened by tests that wait for the end of it.
    patience: float = 5.0

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Provider]:
        """The provider with its vendor at ``url``, closed at the end."""
        provider = self.made(base_url=url)
        provider.call_seconds = self.patience
        try:
            yield provider
        finally:
            await provider.close()

    async def failed(self, server: Server, script: Script, url: str = "") -> SendError:
        """What one send to ``server`` raises."""
        server.script = script
        async with self.at(url or server.url) as provider:
            with pytest.raises(SendError) as caught:
                await provider.send(self.outbound())
        secrets = [self.settings.get(option.name) for option in self.provider.options if option.secret]
        assert not [secret for secret in secrets if secret and secret in str(caught.value)]
        return caught.value

    async def reaches_the_wire(self, outbound: Outbound) -> None:
        """Nobody listens there."""
        async with self.at("http://127.0.0.1:1") as provider:
            with pytest.raises(NotSent):
                await provider.send(outbound)

    async def test_an_accepted_message_gives_the_vendors_id(self, server: Server) -> None:
        server.script = answers(self.accepted)
        async with self.at(server.url) as provider:
            given = await provider.send(self.outbound())
        assert isinstance(given, Accepted)
        assert given.provider_message_id == self.provider_message_id
        assert len(server.requests) == 1

    async def test_a_refused_connection_is_not_sent(self) -> None:
        async with Server.started() as gone:
            pass
        error = await self.failed(gone, wire.hangs)
        assert (type(error), error.code) == (NotSent, "refused")

    async def test_a_name_without_an_address_is_not_sent(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: Any, **__: Any) -> None:
            raise OSError(-2, "Name or service not known")

        monkeypatch.setattr("socket.getaddrinfo", unknown)
        error = await self.failed(server, wire.hangs, "https://vendor.example")
        assert (type(error), error.code) == (NotSent, "dns")

    async def test_a_name_that_is_none_is_not_sent(self, server: Server) -> None:
        error = await self.failed(server, wire.hangs, f"https://{'x' * 64}.example")
        assert type(error) is NotSent

    async def test_a_certificate_that_nobody_trusts_is_not_sent(self, tls_context: ssl.SSLContext) -> None:
        tls_context.set_alpn_protocols(["h2"])
        async with Server.started(tls_context) as strange:
            error = await self.failed(strange, answers(self.accepted))
        assert (type(error), error.code, strange.requests) == (NotSent, "tls", [])

    async def test_a_server_without_tls_where_tls_is_due_is_not_sent(self, server: Server) -> None:
        self.patience = SHORT
        error = await self.failed(server, wire.once(b"SSH-2.0-x\r\n"), server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    async def test_a_tls_handshake_that_never_ends_is_not_sent(self, server: Server) -> None:
        async def silent(line: Line) -> None:
            await line.silence()

        self.patience = SHORT
        error = await self.failed(server, silent, server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    @pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example ESMTP\r\n", b"\0" * 90])
    async def test_a_server_of_another_protocol_is_not_sent(self, said: bytes, server: Server) -> None:
        error = await self.failed(server, http2_peer.speaks(said))
        assert (type(error), error.code) == (NotSent, "no_http2")
        await server.until(lambda there: there.open == 0)

    async def test_a_server_that_never_says_its_settings_is_not_sent(self, server: Server) -> None:
        self.patience = SHORT
        error = await self.failed(server, http2_peer.speaks(b""))
        assert (type(error), error.code) == (NotSent, "connect_timeout")
        await server.until(lambda there: there.open == 0)

    async def test_a_server_that_hangs_up_as_soon_as_it_is_connected_is_not_sent(self, server: Server) -> None:
        async def gone(line: Line) -> None:
            await line.reader.read(1)

        assert type(await self.failed(server, gone)) is NotSent

    async def test_silence_is_in_doubt_in_time_and_is_told_to_the_server(self, server: Server) -> None:
        self.patience = SHORT
        begun = time.monotonic()
        error = await self.failed(server, Vendor(http2_peer.nothing))
        assert (type(error), error.code) == (InDoubt, "timeout")
        assert time.monotonic() - begun < 1.5
        assert len(server.requests) == 1
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize("part", ["body", "continue", "ping"])
    async def test_an_answer_that_drips_is_in_doubt_in_time(self, part: str, server: Server) -> None:
        self.patience = SHORT
        begun = time.monotonic()
        error = await self.failed(server, Vendor(http2_peer.drips(part, 0.004)))
        assert (type(error), error.code) == (InDoubt, "timeout")
        assert time.monotonic() - begun < 1.5

    @pytest.mark.parametrize("act", [http2_peer.resets, http2_peer.closes])
    async def test_an_end_after_the_request_was_read_is_in_doubt(self, act: http2_peer.Act, server: Server) -> None:
        error = await self.failed(server, Vendor(act))
        assert (type(error), error.code) == (InDoubt, "connection_lost")

    async def test_an_answer_that_breaks_off_is_in_doubt(self, server: Server) -> None:
        error = await self.failed(server, Vendor(http2_peer.half(Answer(200, b"{}" * 1000, self.accepted.headers))))
        assert (type(error), error.code) == (InDoubt, "connection_lost")

    @pytest.mark.parametrize(
        "rubbish",
        [
            b"220 mail.example ESMTP\r\n",
            http2_peer.frame(0, 0, b"x"),
            http2_peer.frame(1, 1, b"\xff" * 40, flags=5),
            http2_peer.frame(5, 1, b"\x00\x00\x00\x02\x88", flags=4),
            http2_peer.frame(7, 1, b"\x00" * 8),
            http2_peer.frame(7, 0, b"\x00"),
        ],
    )
    async def test_an_answer_that_is_not_http2_is_in_doubt(self, rubbish: bytes, server: Server) -> None:
        error = await self.failed(server, Vendor(http2_peer.says(rubbish)))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")
        await server.until(lambda there: there.open == 0)

    async def test_a_status_that_is_none_is_in_doubt(self, server: Server) -> None:
        async def odd(peer: Peer, request: Request) -> None:
            peer.h2.send_headers(request.stream, [(":status", "2x0")], end_stream=True)
            await peer.flush()

        error = await self.failed(server, Vendor(odd))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    async def test_a_request_that_the_server_says_it_has_not_processed_is_not_sent(self, server: Server) -> None:
        error = await self.failed(server, http2_peer.refuses(ErrorCodes.REFUSED_STREAM))
        assert (type(error), error.code) == (NotSent, "refused_stream")

    @pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.ENHANCE_YOUR_CALM])
    async def test_a_request_that_is_given_up_is_in_doubt(self, code: ErrorCodes, server: Server) -> None:
        error = await self.failed(server, http2_peer.refuses(code))
        assert (type(error), error.code) == (InDoubt, "connection_lost")

    async def test_a_good_bye_from_before_the_request_is_not_sent(self, server: Server) -> None:
        async def goes(peer: Peer, request: Request) -> None:
            await peer.go_away(request.stream - 1, code=2)

        error = await self.failed(server, Vendor(goes))
        assert (type(error), error.code) == (NotSent, "goaway")
        await server.until(lambda there: there.open == 0)

    async def test_a_good_bye_that_covers_the_request_leaves_its_answer_to_come(self, server: Server) -> None:
        async def goes(peer: Peer, request: Request) -> None:
            await peer.go_away(0x7FFF_FFFF)
            await peer.go_away(request.stream)
            await peer.answer(request, self.accepted)

        server.script = Vendor(goes)
        async with self.at(server.url) as provider:
            given = await provider.send(self.outbound())
            assert given.provider_message_id == self.provider_message_id
            await server.until(lambda there: there.open == 0)

    async def test_a_good_bye_that_covers_the_request_without_an_answer_is_in_doubt(self, server: Server) -> None:
        async def goes(peer: Peer, request: Request) -> None:
            await peer.go_away(request.stream)
            await http2_peer.closes(peer, request)

        error = await self.failed(server, Vendor(goes))
        assert (type(error), error.code) == (InDoubt, "connection_lost")

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    async def test_a_failure_of_the_vendor_is_transient(self, status: int, server: Server) -> None:
        error = await self.failed(server, answers(Answer.of(status, b"<h1>Sorry</h1>", retry_after="9")))
        assert isinstance(error, Transient)
        assert error.retry_after == 9

    @pytest.mark.parametrize(("value", "wait"), WAITS)
    async def test_a_429_is_a_throttle_with_the_vendors_own_wait(
        self, value: str, wait: float | None, server: Server
    ) -> None:
        headers: Mapping[str, str] = {"retry-after": value} if value else {}
        error = await self.failed(server, answers(Answer(429, b"slow down", headers)))
        assert isinstance(error, Throttled)
        assert error.retry_after == wait

    async def test_a_429_may_name_a_date(self, server: Server) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        error = await self.failed(server, answers(Answer.of(429, b"", retry_after=date)))
        assert isinstance(error, Throttled)
        assert error.retry_after == pytest.approx(90, abs=3)

    async def test_a_success_that_is_not_the_vendors_is_in_doubt(self, server: Server) -> None:
        error = await self.failed(server, answers(Answer.of(200, b"<html><body>It works!</body></html>")))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    async def test_a_body_without_an_end_costs_no_memory(self, server: Server) -> None:
        flood = Flood()
        server.script = Vendor(flood)
        async with self.at(server.url) as provider:
            with pytest.raises(InDoubt):
                await provider.send(self.outbound())
        await server.until(lambda there: there.open == 0)
        assert flood.sent < 1024 * 1024

    async def test_headers_without_an_end_cost_no_memory(self, server: Server) -> None:
        async def floods(peer: Peer, request: Request) -> None:
            first, kind = b"\x88", 1
            while True:
                await peer.line.send(
                    http2_peer.frame(kind, request.stream, first + b"\x00\x01x\x7f\xff\x01" + b"y" * 382)
                )
                first, kind = b"", 9

        error = await self.failed(server, Vendor(floods))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int, server: Server) -> None:
        async with Server.started() as elsewhere:
            elsewhere.script = answers(self.accepted)
            error = await self.failed(server, answers(Answer.of(status, location=f"{elsewhere.url}/")))
            assert not isinstance(error, (InDoubt, Transient, Throttled))
            assert (len(server.requests), elsewhere.connections) == (1, 0)

    async def test_messages_share_a_connection(self, server: Server) -> None:
        server.script = answers(self.accepted)
        async with self.at(server.url) as provider:
            for _ in range(3):
                await provider.send(self.outbound())
        assert (server.connections, len(server.requests)) == (1, 3)

    async def test_a_connection_that_the_vendor_has_closed_is_replaced(self, server: Server) -> None:
        async def once(peer: Peer, request: Request) -> None:
            await peer.answer(request, self.accepted)
            await http2_peer.closes(peer, request)

        server.script = Vendor(once)
        async with self.at(server.url) as provider:
            for _ in range(3):
                await provider.send(self.outbound())
        assert (server.connections, len(server.requests)) == (3, 3)

    async def test_a_proxy_of_the_environment_is_ignored(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        server.script = answers(self.accepted)
        async with self.at(server.url) as provider:
            await provider.send(self.outbound())
        assert len(server.requests) == 1
