"""The HTTP/2 client: many requests on few connections, and of each the certainty whether it had left."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohappyeyeballs import start_connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from channels.base import InDoubt, Misconfigured, NotSent, SendError
from channels.http import HttpResponse
from channels.http2 import CONNECTIONS, Http2Client
from channels.written import Writing, watch_writing
from tests.channels import http2_peer
from tests.channels.http2_peer import Answer, Peer, Request, Vendor, answers
from tests.channels.loops import BOTH_LOOPS
from tests.channels.wire import Line, Server

pytestmark = BOTH_LOOPS
YES = Answer.of(200, b"yes")


@pytest.fixture
def client(server: Server, opened: Callable[[AbstractAsyncContextManager[Any]], Any]) -> Http2Client:
    """A client of ``server``."""
    made: Http2Client = Http2Client(server.url)
    opened(aclosing(_Closing(made)))
    return made


class _Closing:
    def __init__(self, client: Http2Client) -> None:
        self._client = client

    async def aclose(self) -> None:
        """At the end of the test."""
        await self._client.close()


async def ask(client: Http2Client, name: str = "x", *, body: bytes = b"{}", seconds: float = 5.0) -> HttpResponse:
    """One request for a path of its own."""
    return await client.request("POST", f"/{name}", headers={"X-Name": name}, body=body, timeout=seconds)


async def failed(client: Http2Client, **how: Any) -> SendError:
    """What a request raises."""
    with pytest.raises(SendError) as caught:
        await ask(client, **how)
    return caught.value


async def watched(client: Http2Client, **how: Any) -> tuple[Writing, HttpResponse | SendError]:
    """One request in a task of its own, with what it told of its writing."""
    writing = watch_writing()
    try:
        return writing, await ask(client, **how)
    except SendError as error:
        return writing, error


class Gathering:
    """An act: holds every request until there are ``count``, then answers the last first, each by its own name."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.held: list[Request] = []

    async def __call__(self, peer: Peer, request: Request) -> None:
        self.held.append(request)
        if len(self.held) == self.count:
            while self.held:
                last = self.held.pop()
                await peer.answer(last, Answer.of(200, last.headers["x-name"].encode()))


async def test_requests_share_a_connection_and_each_gets_its_own_answer(server: Server, client: Http2Client) -> None:
    server.script = Vendor(Gathering(100))
    got = await asyncio.gather(*(ask(client, f"n{number}") for number in range(100)))
    assert [each.body for each in got] == [f"n{number}".encode() for number in range(100)]
    assert server.connections == 1


async def test_an_answer_is_given_as_it_came(server: Server, client: Http2Client) -> None:
    server.script = answers(Answer.of(418, b"short and stout", x_pot="ñandú"))
    got = await ask(client)
    assert (got.status, got.body, got.headers["X-Pot"]) == (418, b"short and stout", "ñandú")


async def test_a_request_is_what_the_standard_wants(server: Server, client: Http2Client) -> None:
    vendor = server.script = answers(YES)
    await client.request("GET", "/a/b?c=d", headers={"Accept": "x"}, timeout=5)
    (request,) = vendor.requests
    authority = server.url.removeprefix("http://")
    assert request.headers == {
        ":method": "GET",
        ":scheme": "http",
        ":authority": authority,
        ":path": "/a/b?c=d",
        "user-agent": "Chaski/1.0.0",
        "accept": "x",
    }


async def test_a_server_over_tls_that_chooses_http2_is_spoken_to(
    trusted: Path, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_context.set_alpn_protocols(["h2", "http/1.1"])
    with_trust(monkeypatch, trusted)
    async with Server.started(tls_context) as there:
        there.script = answers(YES)
        client = Http2Client(there.url)
        assert [(await ask(client)).body for _ in range(3)] == [b"yes"] * 3
        await client.close()
        assert there.connections == 1


@pytest.mark.parametrize("protocols", [["http/1.1"], []])
async def test_a_server_over_tls_that_does_not_choose_http2_gets_nothing(
    protocols: list[str], trusted: Path, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    if protocols:
        tls_context.set_alpn_protocols(protocols)
    with_trust(monkeypatch, trusted)
    heard = b""

    async def listens(line: Line) -> None:
        nonlocal heard
        heard += await line.reader.read(100)

    async with Server.started(tls_context) as there:
        there.script = listens
        client = Http2Client(there.url)
        error = await failed(client)
        await client.close()
    assert (type(error), error.code, heard) == (NotSent, "no_http2", b"")


def with_trust(monkeypatch: pytest.MonkeyPatch, trusted: Path) -> None:
    """The client trusts the tests' authority."""

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(trusted))
        made.set_alpn_protocols(["h2"])
        return made

    monkeypatch.setattr("channels.http2.tls_context", context)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\x00", "\ud800"])
async def test_a_header_that_would_break_the_request_never_leaves(
    value: str, server: Server, client: Http2Client
) -> None:
    with pytest.raises(Misconfigured):
        await client.request("POST", "/", headers={"X-Name": value}, timeout=5)
    assert server.connections == 0


@pytest.mark.parametrize("url", ["https://", "https://user:pass@vendor.example", "http://vendor.example:99999"])
async def test_a_url_that_is_none_points_at_the_account(url: str) -> None:
    error = await failed(Http2Client(url))
    assert (type(error), error.code) == (Misconfigured, "invalid_url")


class Counting:
    """An act: answers in ten milliseconds, and sees how many requests of a connection were open at once."""

    def __init__(self) -> None:
        self.most = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, peer: Peer, request: Request) -> None:
        self.most = max(self.most, peer.h2.open_inbound_streams)
        task = asyncio.ensure_future(self._later(peer, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, peer: Peer, request: Request) -> None:
        await asyncio.sleep(0.01)
        await peer.answer(request, YES)


async def test_no_connection_carries_more_than_the_server_allows(server: Server, client: Http2Client) -> None:
    counting = Counting()
    server.script = Vendor(counting, {SettingCodes.MAX_CONCURRENT_STREAMS: 3})
    got = await asyncio.gather(*(ask(client) for _ in range(60)))
    assert {each.status for each in got} == {200}
    assert counting.most == 3
    assert 1 < server.connections <= CONNECTIONS


async def test_a_server_that_allows_more_after_its_first_answer_gets_more(server: Server, client: Http2Client) -> None:
    async def opens_up(peer: Peer, request: Request) -> None:
        if request.stream == 1:
            peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
        await peer.answer(request, YES)

    server.script = Vendor(opens_up, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    for _ in range(2):
        got = await asyncio.gather(*(ask(client) for _ in range(200)))
        assert {each.status for each in got} == {200}
    assert server.connections <= CONNECTIONS


async def test_a_request_that_finds_no_room_in_time_is_not_sent(server: Server, client: Http2Client) -> None:
    server.script = Vendor(http2_peer.nothing, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    given = await asyncio.gather(*(watched(client, seconds=0.3) for _ in range(CONNECTIONS + 2)))
    kinds = [type(outcome) for _, outcome in given]
    assert kinds == [InDoubt] * CONNECTIONS + [NotSent] * 2
    assert [writing.at is not None for writing, _ in given] == [True] * CONNECTIONS + [False] * 2
    assert len(server.requests) == CONNECTIONS


async def test_a_further_connection_that_cannot_be_had_fails_nobody(
    server: Server, client: Http2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise ConnectionRefusedError(111, "refused")

    server.script = Vendor(Counting(), {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    await ask(client)
    monkeypatch.setattr(client._opener, "open", refused)
    got = await asyncio.gather(*(ask(client) for _ in range(20)))
    assert {each.status for each in got} == {200}


async def test_a_server_that_allows_nothing_gets_nothing(server: Server, client: Http2Client) -> None:
    server.script = Vendor(http2_peer.nothing, {SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    error = await failed(client, seconds=0.2)
    assert (type(error), server.requests) == (NotSent, [])


async def test_bodies_beyond_the_windows_of_the_server_are_written_as_it_reads(
    server: Server, client: Http2Client
) -> None:
    bodies = [bytes([65 + number]) * 50_000 for number in range(8)]
    vendor = server.script = Vendor(lambda peer, request: peer.answer(request, YES))
    vendor.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1_000}
    given = await asyncio.gather(*(watched(client, body=body) for body in bodies))
    assert all(isinstance(outcome, HttpResponse) and writing.at for writing, outcome in given)
    assert sorted(request.body for request in vendor.requests) == bodies


async def test_a_body_that_the_server_never_lets_go_on_is_not_sent_and_taken_back(
    server: Server, client: Http2Client
) -> None:
    peers: list[Peer] = []

    async def stingy(line: Line) -> None:
        peers.append(Peer(line, {}, reads=False))
        await peers[0].greet()
        await peers[0].request()

    server.script = stingy
    writing, error = await watched(client, body=b"x" * 100_000, seconds=0.3)
    assert (type(error), writing.at) == (NotSent, None)
    await server.until(lambda there: there.open == 0)
    assert [event.error_code for event in peers[0].resets] == [ErrorCodes.CANCEL]


async def test_an_answer_from_before_the_body_was_whole_counts(server: Server, client: Http2Client) -> None:
    async def quick(line: Line) -> None:
        peer = Peer(line, {}, reads=False)
        await peer.greet()
        await peer.answer(Request(await peer.begun(), {}), Answer.of(413, b"too much"))
        await peer.request()

    server.script = quick
    writing, got = await watched(client, body=b"x" * 100_000)
    assert isinstance(got, HttpResponse)
    assert (got.status, writing.at) == (413, None)


async def test_a_connection_that_breaks_in_the_middle_of_a_body_is_not_sent(
    server: Server, client: Http2Client
) -> None:
    async def breaks(line: Line) -> None:
        peer = Peer(line, {}, reads=False)
        await peer.greet()
        await peer.begun()
        line.reset()

    server.script = breaks
    writing, error = await watched(client, body=b"x" * 100_000)
    assert (type(error), writing.at) == (NotSent, None)


async def test_a_request_is_written_between_its_begin_and_its_answer(server: Server, client: Http2Client) -> None:
    server.script = answers(YES)
    begun = time.monotonic()
    writing, _ = await watched(client)
    assert writing.at is not None
    assert begun <= writing.at <= time.monotonic()


async def test_a_call_that_is_cut_off_still_tells_when_it_wrote(server: Server, client: Http2Client) -> None:
    there = asyncio.Event()

    async def tells(peer: Peer, request: Request) -> None:
        there.set()

    server.script = Vendor(tells)
    writing = watch_writing()
    calling = asyncio.ensure_future(ask(client))
    await there.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert writing.at is not None


async def test_a_good_bye_parts_what_was_processed_from_what_was_not(server: Server, client: Http2Client) -> None:
    held: list[Request] = []

    async def goes_after_ten(peer: Peer, request: Request) -> None:
        held.append(request)
        if len(held) == 10:
            await peer.go_away(held[5].stream)
            for each in held[:6]:
                await peer.answer(each, YES)

    server.script = Vendor(goes_after_ten)
    given = await asyncio.gather(*(watched(client, name=str(number)) for number in range(10)))
    outcomes = [outcome for _, outcome in given]
    assert all(isinstance(each, HttpResponse) for each in outcomes[:6])
    assert [(type(each), getattr(each, "code", "")) for each in outcomes[6:]] == [(NotSent, "goaway")] * 4
    server.script = answers(YES)
    assert (await ask(client)).body == b"yes"
    assert server.connections == 2


async def test_what_waits_for_the_first_connection_shares_its_failure(server: Server, client: Http2Client) -> None:
    async def gone(line: Line) -> None:
        await line.reader.read(1)
        line.reset()

    server.script = gone
    given = await asyncio.gather(*(watched(client) for _ in range(50)))
    assert {type(outcome) for _, outcome in given} == {NotSent}
    assert server.connections == 1


async def test_who_gives_up_waiting_takes_the_connection_from_nobody(server: Server, client: Http2Client) -> None:
    server.script = answers(YES)
    hasty, patient = asyncio.ensure_future(ask(client)), asyncio.ensure_future(ask(client))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    hasty.cancel()
    assert (await patient).body == b"yes"
    with suppress(asyncio.CancelledError):
        await hasty
    assert server.connections == 1


async def test_a_connection_on_which_nothing_is_heard_is_not_used_again(server: Server, client: Http2Client) -> None:
    server.script = Vendor(http2_peer.nothing)
    await failed(client, seconds=0.2)
    server.script = answers(YES)
    assert (await ask(client)).body == b"yes"
    assert server.connections == 2
    await server.until(lambda there: there.open == 1)


async def test_an_answer_that_comes_too_late_costs_no_connection_and_is_nobodys(
    server: Server, client: Http2Client
) -> None:
    slow_ones: list[Request] = []

    async def but_for_one(peer: Peer, request: Request) -> None:
        if request.headers["x-name"] == "slow":
            slow_ones.append(request)
        if request.headers["x-name"] == "next":
            await peer.line.send(http2_peer.frame(1, slow_ones[0].stream, b"\x88", flags=5))  # 200, and its end
            await peer.answer(request, Answer.of(418))
        elif request.headers["x-name"] == "quick":
            await peer.answer(request, YES)

    server.script = Vendor(but_for_one)
    slow = asyncio.ensure_future(failed(client, name="slow", seconds=0.3))
    while not slow.done():
        await ask(client, name="quick")
    assert type(await slow) is InDoubt
    assert (await ask(client, name="next")).status == 418
    assert server.connections == 1


async def test_an_idle_connection_is_closed_in_time(
    server: Server, client: Http2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http2_wire.IDLE_SECONDS", 0.05)
    server.script = answers(YES)
    await ask(client)
    await server.until(lambda there: there.open == 0)
    await ask(client)
    assert server.connections == 2


async def test_a_connection_that_has_carried_its_share_is_replaced(
    server: Server, client: Http2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http2_wire.REQUESTS_LIMIT", 3)
    server.script = answers(YES)
    for _ in range(6):
        await ask(client)
    assert server.connections == 2
    await server.until(lambda there: there.open == 0)


async def test_closing_the_client_ends_what_is_under_way(server: Server, client: Http2Client) -> None:
    there = asyncio.Event()

    async def hangs(peer: Peer, request: Request) -> None:
        there.set()

    server.script = Vendor(hangs)
    calling = asyncio.ensure_future(failed(client))
    await there.wait()
    await client.close()
    assert type(await calling) is InDoubt
    await server.until(lambda there: there.open == 0)


async def test_closing_the_client_ends_what_waits_for_a_connection(server: Server, client: Http2Client) -> None:
    there = asyncio.Event()

    async def silent(line: Line) -> None:
        there.set()
        await line.silence()

    server.script = silent
    calling = asyncio.ensure_future(failed(client))
    await there.wait()
    await client.close()
    assert type(await calling) is NotSent


async def test_a_server_that_asks_and_never_reads_costs_no_memory(
    server: Server, client: Http2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def small(*given: Any, **how: Any) -> socket.socket:
        link = await start_connection(*given, **how)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return link

    monkeypatch.setattr("channels.http_pool.start_connection", small)
    monkeypatch.setattr("channels.http2_wire._UNREAD_LIMIT", 10_000)

    async def pings(peer: Peer, request: Request) -> None:
        peer.line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        many = http2_peer.frame(6, 0, b"12345678") * 5_000
        while True:
            await peer.line.send(many)

    server.script = Vendor(pings)
    error = await failed(client, seconds=30)
    assert (type(error), error.code) == (InDoubt, "connection_lost")


async def test_no_text_of_an_error_holds_the_path(server: Server, client: Http2Client) -> None:
    server.script = Vendor(http2_peer.resets)
    assert "secret-token" not in str(await failed(client, name="secret-token"))
