"""The long tail through apprise: what goes out, what its yes and no mean, and that it holds nobody up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from channels.apprise import THREADS, Apprise
from channels.base import (
    Accepted,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
)
from tests.channels import wire
from tests.channels.contract import ProviderContract, Unused
from tests.channels.wire import Line, Script, Server, answer, answers

#: Apprise loads all its services with the first URL; one of them asks for a module that Python has given up.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


class TestApprise(ProviderContract):
    provider = Apprise
    channel = "push"
    to = "ana"
    settings = {"url": "json://user:secret-of-the-account@127.0.0.1:9/{to}"}

    async def reaches_the_wire(self, outbound: Outbound) -> None:
        """Nothing listens on the port: apprise has tried, and says no more than no."""
        provider = self.made()
        with pytest.raises(InDoubt):
            await provider.send(outbound)
        await provider.close()

    def at(self, server: Server, path: str = "{to}", scheme: str = "json") -> Provider:
        provider = self.made(url=f"{scheme}://127.0.0.1:{server.port}/{path}")
        provider.call_seconds = 5.0
        return provider

    async def failed(self, server: Server, script: Script) -> SendError:
        server.script = script
        provider = self.at(server)
        with pytest.raises(SendError) as caught:
            await provider.send(self.outbound())
        await provider.close()
        return caught.value

    async def test_the_text_goes_where_the_url_says(self, server: Server) -> None:
        server.script = answers(answer(200))
        provider = self.made(url=f"json://user:secret@127.0.0.1:{server.port}/to/{{to}}")
        assert (
            await provider.send(self.outbound(to="ana+1@example.com", text="¡Listo!", subject="Order 7")) == Accepted()
        )
        await provider.close()
        [request] = server.requests
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /to/ana+1@example.com HTTP/1.1\r\n")
        assert b"Authorization: Basic dXNlcjpzZWNyZXQ=" in head
        told = json.loads(body)
        assert (told["title"], told["message"], told["type"]) == ("Order 7", "¡Listo!", "info")

    async def test_the_recipient_cannot_change_the_url(self, server: Server) -> None:
        server.script = answers(answer(200))
        provider = self.at(server, "?:whom={to}")
        await provider.send(self.outbound(to="#ana&:message=whom&x=1"))
        await provider.close()
        told = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert (told["whom"], told["message"]) == ("#ana&:message=whom&x=1", "Your order is on its way.")

    async def test_html_alone_becomes_a_text_where_the_service_takes_text(self, server: Server) -> None:
        server.script = answers(answer(200, b"{}"))
        provider = self.at(server, scheme="ntfy")
        await provider.send(self.outbound(text="", html="<p>Your <b>order</b></p>"))
        await provider.close()
        assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["message"].strip() == "Your order"

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
    async def test_a_no_is_in_doubt_as_nobody_tells_why(self, status: int, server: Server) -> None:
        error = await self.failed(server, answers(answer(status, b"no")))
        assert (type(error), error.code) == (InDoubt, "no_answer_told")

    @pytest.mark.parametrize(
        "script", [wire.resets_before_reading, wire.resets_after_reading, wire.closes_after_reading]
    )
    async def test_a_connection_that_ends_is_in_doubt(self, script: Script, server: Server) -> None:
        error = await self.failed(server, script)
        assert (type(error), error.code) == (InDoubt, "no_answer_told")

    async def test_a_service_that_says_nothing_is_in_doubt_in_time(self, server: Server) -> None:
        server.script = wire.hangs
        provider = self.at(server)
        provider.call_seconds = 0.3
        begun = time.monotonic()
        with pytest.raises(InDoubt) as caught:
            await provider.send(self.outbound())
        assert caught.value.code == "timeout"
        assert time.monotonic() - begun < 1.5
        await provider.close()

    async def test_what_no_thread_has_begun_was_surely_not_sent(self, server: Server) -> None:
        server.script = wire.hangs
        provider = self.at(server)
        provider.call_seconds = 1.0
        sent = [provider.send(self.outbound()) for _ in range(THREADS + 1)]
        errors = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(error) for error in errors] == [InDoubt] * THREADS + [NotSent]
        await provider.close()

    async def test_the_loop_goes_on_while_a_service_thinks(self, server: Server) -> None:
        turns = 0

        async def thinks(line: Line) -> None:
            nonlocal turns
            await line.request()
            while turns < 20:
                await asyncio.sleep(0.01)
                turns += 1
            await line.send(answer(200))

        server.script = thinks
        provider = self.at(server)
        assert await provider.send(self.outbound()) == Accepted()
        assert turns == 20
        await provider.close()

    async def test_apprise_does_not_sleep_for_a_pace_of_its_own(self, server: Server) -> None:
        server.script = answers(answer(200, b"{}"))
        provider = self.at(server, "{to}/everybody", "ntfy")
        begun = time.monotonic()
        await provider.send(self.outbound())
        await provider.close()
        topics = {json.loads(request.partition(b"\r\n\r\n")[2])["topic"] for request in server.requests}
        assert topics == {"ana", "everybody"}
        assert time.monotonic() - begun < 4  # it would wait five seconds and a half between the two

    async def test_a_url_cannot_ask_for_repeats_nor_for_a_yes_whatever_happens(self, server: Server) -> None:
        server.script = answers(answer(500))
        provider = self.at(server, "{to}?retry=3&wait=0&optional=yes")
        with pytest.raises(InDoubt):
            await provider.send(self.outbound())
        await provider.close()
        assert len(server.requests) == 1

    async def test_a_redirect_is_not_followed(self, server: Server) -> None:
        async with Server.started() as elsewhere:
            elsewhere.script = answers(answer(200))
            error = await self.failed(server, answers(answer(307, b"", f"Location: {elsewhere.url}/")))
            assert (type(error), elsewhere.connections) == (InDoubt, 0)

    @pytest.mark.parametrize(
        "url", ["https://", "nosuchservice://x", "json://", "pover://only-a-user", "127.0.0.1", "{to}", " "]
    )
    def test_a_url_that_apprise_cannot_read_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Apprise.check({"url": url})
        assert caught.value.name == "url"

    @pytest.mark.parametrize(
        "url",
        [
            "ntfy://127.0.0.1/orders",
            "pover://{to}@azGDORePK8gMaC0QOYAMyEEuzJnyUi",
            "mailto://user:pass@example.com?to={to}",
            "signal://127.0.0.1:8080/+15005550006/{to}",
        ],
    )
    def test_a_url_that_apprise_can_read_passes(self, url: str) -> None:
        assert Apprise.check({"url": url})["url"] == url

    @pytest.mark.parametrize(
        "to", ["ana,eva", "ana eva", "ana;eva", "ana/eva", "[ana]", "ana\\eva", "ana\neva", "ana%2Ceva", "ana?all=1"]
    )
    async def test_a_recipient_that_apprise_would_take_for_several_is_refused(self, to: str) -> None:
        assert set(Apprise.refuse(self.outbound(to=to))) == {"to"}
        with pytest.raises(SendError) as caught:
            await self.made().send(self.outbound(to=to))
        assert caught.value.code == "invalid_message"

    async def test_a_recipient_that_the_service_cannot_have_is_refused(self) -> None:
        provider = self.made(url="pushy://key-of-the-account/{to}")
        with pytest.raises(RecipientRefused) as caught:
            await provider.send(self.outbound(to="ñ"))
        assert caught.value.code == "recipient_unreadable"
        await provider.close()

    async def test_an_account_whose_url_cannot_be_read_any_more_is_stopped(self) -> None:
        provider = Apprise({"url": "nosuchservice://x"}, Unused())
        with pytest.raises(Misconfigured):
            await provider.send(self.outbound())
        await provider.close()

    async def test_nothing_of_the_recipient_is_logged(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        await self.failed(server, answers(answer(500)))
        assert not caplog.records


def test_a_message_has_no_options_of_its_own() -> None:
    outbound: dict[str, Any] = {"message_id": "1", "channel": "push", "to": "ana", "text": "x", "options": {"tag": 1}}
    assert "tag" in Apprise.refuse(Outbound(**outbound))["options"]
