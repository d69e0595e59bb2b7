"""The client itself: what the contract of the providers does not show."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from channels.base import InDoubt, Misconfigured, NotSent, SendError
from channels.http import BODY_LIMIT, HttpClient, HttpResponse, Reach
from tests.channels import wire
from tests.channels.loops import BOTH_LOOPS
from tests.channels.wire import Line, Server, answer, answers

pytestmark = BOTH_LOOPS


async def get(http: HttpClient, url: str, seconds: float = 1.0, **more: Any) -> HttpResponse:
    """One request."""
    return await http.request(more.pop("method", "POST"), url, headers={}, timeout=seconds, **more)


async def test_an_answer_is_given_as_it_came(server: Server, http: HttpClient) -> None:
    server.script = answers(answer(418, b"\xff\x00teapot", "X-Kind: Pot"))
    given = await get(http, server.url)
    assert (given.status, given.body, given.headers["x-kind"]) == (418, b"\xff\x00teapot", "Pot")


async def test_a_body_is_cut_at_the_limit(server: Server, http: HttpClient) -> None:
    server.script = answers(answer(200, b"x" * (BODY_LIMIT + 100_000)))
    assert len((await get(http, server.url)).body) == BODY_LIMIT


async def test_nothing_compressed_is_asked_for_or_inflated(server: Server, http: HttpClient) -> None:
    server.script = answers(answer(200, b"\x1f\x8bnot inflated", "Content-Encoding: gzip"))
    assert (await get(http, server.url)).body == b"\x1f\x8bnot inflated"
    assert b"accept-encoding" not in server.requests[0].lower()


async def test_a_trusted_certificate_lets_the_request_through(
    http: HttpClient, trusted: Path, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http_pool.tls_context", lambda: ssl.create_default_context(cafile=str(trusted)))
    async with Server.started(tls_context) as there:
        there.script = answers(answer(200))
        assert (await get(http, there.url)).status == 200
        with pytest.raises(NotSent) as caught:
            await get(http, there.url.replace("localhost", "127.0.0.1"))
    assert caught.value.code == "tls"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_no_request_is_repeated_by_itself_whatever_its_method(
    method: str, server: Server, http: HttpClient
) -> None:
    async def one_answer_then_silence(line: Line) -> None:
        await line.request()
        await line.send(answer(200))
        await line.request()

    server.script = one_answer_then_silence
    await get(http, server.url, method=method)
    with pytest.raises(InDoubt):
        await get(http, server.url, method=method)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "url", ["", "shop.example", "http://", "https://[::1", "http://x:99999/", "http://a b/", "http://\x00/"]
)
async def test_a_url_that_is_none_points_at_the_account(url: str, http: HttpClient) -> None:
    with pytest.raises((Misconfigured, NotSent)):
        await get(http, url)


@pytest.mark.parametrize("value", ["b\r\nX-Evil: 1", "contrase\udcf1a", "\ud800"])
async def test_a_header_that_would_break_the_request_never_leaves(value: str, server: Server, http: HttpClient) -> None:
    with pytest.raises(SendError) as caught:
        await http.request("POST", server.url, headers={"X-A": value}, timeout=1.0)
    assert type(caught.value) is Misconfigured
    assert server.requests == []


@pytest.mark.parametrize("user", ["user", "user:password", ":password"])
async def test_a_url_with_a_user_points_at_the_account(user: str, server: Server, http: HttpClient) -> None:
    server.script = answers(answer(200))
    with pytest.raises(Misconfigured) as caught:
        await get(http, server.url.replace("//", f"//{user}@"))
    assert "password" not in str(caught.value)
    assert server.requests == []


async def test_the_two_reaches_share_no_connection(server: Server, http: HttpClient) -> None:
    server.script = answers(answer(200))
    await get(http, server.url)
    await get(http, server.url, reach=Reach.PUBLIC)
    assert server.connections == 2


async def test_a_look_up_that_hangs_holds_no_slot_and_no_other_request(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.dns._addresses", lambda *_: time.sleep(0.6))
    server.script = answers(answer(200))
    begun = time.monotonic()
    lost = asyncio.gather(*(get(http, f"http://slow-{n}.example/", 0.2) for n in range(20)), return_exceptions=True)
    assert (await get(http, server.url)).status == 200  # no name, no look-up
    assert {type(error) for error in await lost} == {NotSent}
    assert time.monotonic() - begun < 0.6


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_ones(server: Server, http: HttpClient) -> None:
    async def late(line: Line) -> None:
        await line.request()
        await asyncio.sleep(0.2)
        await line.send(answer(200, b"late"))

    server.script = late
    with pytest.raises(InDoubt):
        await get(http, server.url, 0.1)
    server.script = answers(answer(200, b"the next"))
    assert (await get(http, server.url)).body == b"the next"
    assert server.connections == 2


@pytest.mark.parametrize(
    "data",
    [answer(200, b"one") + answer(200, b"two"), answer(200, b"one") + b"more", b"HTTP/1.1 204 No\r\n\r\nmore"],
    ids=["a second answer", "no answer", "a body where none is due"],
)
async def test_what_nobody_asked_for_ends_the_connection(data: bytes, server: Server, http: HttpClient) -> None:
    async def both(line: Line) -> None:
        await line.request()
        await line.send(data)
        await line.request()
        await line.send(answer(200, b"the next"))

    server.script = both
    assert (await get(http, server.url)).body in (b"one", b"")
    server.script = answers(answer(200, b"the next"))
    assert (await get(http, server.url)).body == b"the next"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(201, b"final"), b"final"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n", b"abcde"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["interim answers", "chunks and a trailer", "until the end", "no body"],
)
async def test_an_answer_is_read_in_every_form_that_http_has(
    data: bytes, body: bytes, server: Server, http: HttpClient
) -> None:
    server.script = wire.once(data)
    assert (await get(http, server.url)).body == body


async def test_an_idle_connection_is_closed_in_time(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http_pool.IDLE_SECONDS", 0.05)
    server.script = answers(answer(200))
    await get(http, server.url)
    await server.until(lambda there: there.open == 0)


async def test_many_requests_run_at_once(server: Server, http: HttpClient) -> None:
    arrived = asyncio.Event()

    async def all_or_none(line: Line) -> None:
        await line.request()
        if len(server.requests) == 100:
            arrived.set()
        await arrived.wait()
        await line.send(answer(200))

    server.script = all_or_none
    given = await asyncio.gather(*(get(http, server.url, 5.0) for _ in range(100)))
    assert {response.status for response in given} == {200}


async def test_one_outcome_is_not_taken_for_another_when_requests_run_at_once(server: Server, http: HttpClient) -> None:
    """Whether something was written is kept per request: a hanging one must not make a refused one doubtful."""
    server.script = wire.hangs
    async with Server.started() as gone:
        refused = gone.url
    both = await asyncio.gather(get(http, server.url, 0.3), get(http, refused, 0.3), return_exceptions=True)
    assert [type(error) for error in both] == [InDoubt, NotSent]


async def test_closing_the_client_ends_what_is_under_way(server: Server, http: HttpClient) -> None:
    server.script = wire.hangs
    asking = asyncio.ensure_future(get(http, server.url, 5.0))
    await server.until(lambda there: len(there.requests) == 1) if server.requests else await asyncio.sleep(0.05)
    await http.close()
    with pytest.raises(InDoubt):
        await asking
    await server.until(lambda there: there.open == 0)


async def test_no_text_of_an_error_holds_the_url(server: Server, http: HttpClient) -> None:
    secret = "bot1:very-secret"
    async with Server.started() as gone:
        dead = gone.url
    server.script = wire.resets_after_reading
    for url in (dead, server.url, f"https://{'x' * 64}.example", server.url.replace("http:", "https:"), "http://a b"):
        with pytest.raises(SendError) as caught:
            await get(http, f"{url}/{secret}", 0.3)
        assert secret not in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)
