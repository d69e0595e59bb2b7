"""What every provider owes the delivery engine, whatever its wire: each provider's test inherits from here.

``ProviderContract`` needs no network; ``HttpContract`` adds how a provider must class what HTTP servers do, right and
wrong. Both know the provider only through `channels.base`.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import (
    Accepted,
    Forged,
    InboundRequest,
    InDoubt,
    InvalidOption,
    NotSent,
    Outbound,
    Provider,
    Receipt,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.http import HttpClient
from tests.channels import wire
from tests.channels.wire import Flood, Script, Server, answer, answers

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
#: Each subclass is a test of its own; hypothesis sees one function and must not replay one's examples on the other.
FUZZ = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.differing_executors])
FORMS = st.dictionaries(st.sampled_from(["x-twilio-signature", "webhook-id", "content-type"]) | st.text(), st.text())


class Unused(HttpClient):
    """A client for what must not reach the network."""

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing may come here."""
        raise AssertionError("a request was made")


class ProviderContract:
    """A subclass names its provider and shows one good account and one good message."""

    provider: ClassVar[type[Provider]]
    channel: ClassVar[str]
    to: ClassVar[str]
    #: Options and secrets of a valid account.
    settings: ClassVar[Mapping[str, str]]
    #: What a message of this provider holds besides its text.
    message: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def made(cls, http: HttpClient | None = None, **changes: str) -> Provider:
        """The provider for the valid account with ``changes``."""
        return cls.provider(cls.provider.check({**cls.settings, **changes}), http or Unused())

    @classmethod
    def outbound(cls, **changes: Any) -> Outbound:
        """The good message with ``changes``."""
        fields = {"message_id": MESSAGE_ID, "channel": cls.channel, "to": cls.to, "text": "Your order is on its way."}
        return Outbound(**{**fields, **cls.message, **changes})

    def test_it_says_who_it_is(self) -> None:
        assert self.channel in self.provider.channels
        assert self.provider.name == self.provider.name.lower()
        assert inspect.getdoc(self.provider) != inspect.getdoc(Provider)

    def test_every_option_says_what_it_is_for(self) -> None:
        names = [option.name for option in self.provider.options]
        assert len(set(names)) == len(names)
        assert all(option.help for option in self.provider.options)
        assert all(self.provider.message_options.values())

    def test_a_valid_account_passes_and_gets_the_defaults(self) -> None:
        checked = self.provider.check(self.settings)
        assert set(checked) == {option.name for option in self.provider.options}
        assert all(checked[name] == value for name, value in self.settings.items())

    def test_a_checked_account_passes_again(self) -> None:
        checked = self.provider.check(self.settings)
        assert self.provider.check(checked) == checked

    def test_an_option_it_does_not_know_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidOption, match="no_such_option"):
            self.provider.check({**self.settings, "no_such_option": "1"})

    def test_every_missing_option_is_refused_by_name(self) -> None:
        for option in self.provider.options:
            if option.required:
                with pytest.raises(InvalidOption) as caught:
                    self.provider.check({**self.settings, option.name: ""})
                assert caught.value.name == option.name

    @given(data=st.data())
    @settings(FUZZ, max_examples=60)
    def test_whatever_an_option_is_set_to_the_account_is_refused_or_can_be_used(self, data: st.DataObject) -> None:
        names = [option.name for option in self.provider.options if not option.name.endswith("_file")]
        if not names:
            return
        name = data.draw(st.sampled_from(names))
        try:
            checked = self.provider.check({**self.settings, name: data.draw(st.text(max_size=30))})
        except InvalidOption:
            return
        self.provider(checked, Unused())

    def test_secrets_are_blanked_in_what_staff_sees(self) -> None:
        names = [option.name for option in self.provider.options if option.secret]
        secrets = [self.settings[name] for name in names if name in self.settings]
        text = self.made().redact(" and ".join(["kept", *secrets]))
        assert text.startswith("kept")
        assert not [secret for secret in secrets if secret in text]

    def test_a_call_ends_before_its_deadline_and_the_deadline_before_the_lease(self) -> None:
        assert self.provider.call_seconds < self.provider.deadline_seconds < self.provider.lease_seconds

    def test_an_ordinary_message_passes_the_door(self) -> None:
        assert self.provider.refuse(self.outbound()) == {}

    def test_an_empty_message_is_refused_at_the_door(self) -> None:
        assert "text" in self.provider.refuse(self.outbound(text="", html="", metadata={}))

    def test_a_message_option_it_does_not_know_is_refused_at_the_door(self) -> None:
        refused = self.provider.refuse(self.outbound(options={"no_such_option": 1}))
        assert "no_such_option" in refused["options"]

    @given(data=st.data())
    @settings(FUZZ, max_examples=100)
    def test_whatever_a_message_option_holds_it_is_refused_or_becomes_a_request(self, data: st.DataObject) -> None:
        known = sorted(self.provider.message_options)
        names = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        outbound = self.outbound(options={name: data.draw(JSON) for name in names})
        refused = self.provider.refuse(outbound)
        assert all(isinstance(reason, str) and reason for reason in refused.values())
        if not refused:
            asyncio.run(self.reaches_the_wire(outbound))

    async def reaches_the_wire(self, outbound: Outbound) -> None:
        """An exception that is no ``SendError`` would count as in doubt, though nothing had left."""
        provider = self.made(Offline())
        provider.call_seconds = 1.0
        with pytest.raises(NotSent):
            await provider.send(outbound)
        await provider.close()

    @given(body=st.binary(max_size=200), headers=FORMS, query=FORMS, method=st.sampled_from(["GET", "POST"]))
    @settings(FUZZ, max_examples=200)
    def test_whatever_is_posted_to_it_is_forged(
        self, body: bytes, headers: dict[str, str], query: dict[str, str], method: str
    ) -> None:
        request = InboundRequest(method, "https://chaski.example/receipts/1?message=2", headers, query, body)
        with pytest.raises(Forged):
            self.made().verify(request)

    @given(body=st.binary(max_size=200), query=FORMS, method=st.sampled_from(["GET", "POST"]))
    @settings(FUZZ, max_examples=200)
    def test_whatever_is_parsed_gives_receipts_or_is_unreadable(
        self, body: bytes, query: dict[str, str], method: str
    ) -> None:
        request = InboundRequest(method, "https://chaski.example/receipts/1", {}, query, body)
        try:
            found = self.made().parse(request)
        except Unreadable:
            return
        assert all(isinstance(receipt, Receipt) and receipt.event_id for receipt in found)
        assert self.provider.receipts

    def test_it_can_be_closed_without_having_been_used(self) -> None:
        asyncio.run(self.made().close())


class Offline(HttpClient):
    """A client whose network is away."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"", **_: Any) -> Any:
        """What is given must be fit for a wire, which is not there."""
        assert all("\n" not in name + value and "\r" not in name + value for name, value in headers.items())
        assert isinstance(body, bytes)
        raise NotSent("refused")


WAITS = [
    (("Retry-After: 7",), 7),
    (("Retry-After: 0",), 0),
    (("retry-after: 99999999999999999999",), 86_400),
    ((), None),
    (("Retry-After: soon",), None),
    (("Retry-After: -5",), None),
    (("Retry-After: 1.5",), None),
]
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

    def at(self, url: str, http: HttpClient) -> Provider:
        """The provider with its vendor at ``url`` and little patience."""
        provider = self.made(http, base_url=url)
        provider.call_seconds = 0.4
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
        error = await self.failed(server, http, wire.once(b"SSH-2.0-x\r\n"), server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    async def test_a_tls_handshake_that_never_ends_is_not_sent(self, server: Server, http: HttpClient) -> None:
        async def silent(line: wire.Line) -> None:
            await line.silence()

        error = await self.failed(server, http, silent, server.url.replace("http:", "https:"))
        assert type(error) is NotSent

    async def test_silence_is_in_doubt_in_time_and_frees_the_slot(self, server: Server, http: HttpClient) -> None:
        begun = time.monotonic()
        error = await self.failed(server, http, wire.hangs)
        assert (type(error), error.code) == (InDoubt, "timeout")
        assert time.monotonic() - begun < 1.5
        assert len(server.requests) == 1
        await server.until(lambda there: there.open == 0)

    @pytest.mark.parametrize("part", ["status", "headers", "body", "continue"])
    async def test_an_answer_that_drips_is_in_doubt_in_time(self, part: str, server: Server, http: HttpClient) -> None:
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
        data = answer(self.accepted_status, self.accepted_body + b" " * 20_000)
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
    async def test_a_success_that_cannot_be_read_is_in_doubt(self, kind: str, server: Server, http: HttpClient) -> None:
        if not self.reads_the_answer:
            pytest.skip("any 2xx is acceptance here")
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
