"""What a hostile or unlucky server can do to one connection: answers without an end, leftovers, answers before their time."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from pathlib import Path

import pytest

from channels.base import InDoubt, SendError
from channels.http import HttpClient, HttpResponse
from tests.channels import wire
from tests.channels.loops import BOTH_LOOPS
from tests.channels.wire import Flood, Line, Server, answer, answers

pytestmark = BOTH_LOOPS

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
PIECE = b"y" * 65_536
MEGABYTE = 1024 * 1024
SECRET = b"S3cr3t"


async def post(http: HttpClient, url: str, body: bytes = b"{}") -> HttpResponse:
    """One request."""
    return await http.request("POST", url, headers={}, body=body, timeout=5.0)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED + b"0\r\n", b"a:\r\n" * 16_384),
        (CHUNKED + b"0\r\nX: ", PIECE),
        (CHUNKED + b"2;a=", PIECE),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2_048),
    ],
    ids=["trailers", "one trailer", "a chunk's extension", "interim answers"],
)
async def test_an_answer_without_an_end_is_given_up_long_before_its_time(
    head: bytes, piece: bytes, server: Server, http: HttpClient
) -> None:
    flood = Flood(head, piece, limit=16 * MEGABYTE)
    server.script = flood
    with pytest.raises(InDoubt) as caught:
        await post(http, server.url)
    assert caught.value.code == "unreadable_answer"
    await server.until(lambda there: there.open == 0)
    assert flood.sent < flood.limit


async def test_what_comes_after_the_body_is_no_header(server: Server, http: HttpClient) -> None:
    server.script = answers(CHUNKED + b"0\r\nRetry-After: 9\r\n\r\n")
    assert "Retry-After" not in (await post(http, server.url)).headers


async def test_a_connection_is_not_used_after_its_idle_time_though_nothing_has_closed_it_yet(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http_pool.IDLE_SECONDS", 0.05)
    server.script = answers(answer(200))
    await post(http, server.url)
    time.sleep(0.06)  # noqa: ASYNC251 - the loop is busy, and so is the pool's clock
    await post(http, server.url)
    assert server.connections == 2


async def test_what_a_server_says_while_the_loop_is_busy_is_no_answer_to_the_next_request(
    server: Server, http: HttpClient
) -> None:
    lines: list[Line] = []

    async def once(line: Line) -> None:
        lines.append(line)
        await wire.answers(answer(200))(line)

    server.script = once
    await post(http, server.url)
    os.write(lines[0].writer.get_extra_info("socket").fileno(), answer(408))
    assert (await post(http, server.url)).status == 200
    assert server.connections == 2


async def _answers_early(line: Line) -> None:
    await line.reader.readuntil(b"\r\n\r\n")
    await line.send(answer(413))
    await asyncio.Event().wait()  # reads no further


async def test_a_connection_with_a_request_still_to_be_written_carries_no_other(
    server: Server, http: HttpClient
) -> None:
    server.script = _answers_early
    assert (await post(http, server.url, b"x" * 32 * MEGABYTE)).status == 413
    server.script = answers(answer(200))
    assert (await post(http, server.url)).status == 200
    assert server.connections == 2


async def test_a_tls_connection_with_a_request_still_to_be_written_carries_no_other(
    http: HttpClient, trusted: Path, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http_pool.tls_context", lambda: ssl.create_default_context(cafile=str(trusted)))
    async with Server.started(tls_context) as there:
        there.script = _answers_early
        assert (await post(http, there.url, b"x" * 32 * MEGABYTE)).status == 413
        there.script = answers(answer(200))
        assert (await post(http, there.url)).status == 200
        assert there.connections == 2


async def test_a_tls_connection_carries_one_request_after_the_other(
    http: HttpClient, trusted: Path, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http_pool.tls_context", lambda: ssl.create_default_context(cafile=str(trusted)))
    async with Server.started(tls_context) as there:
        there.script = answers(answer(200))
        for _ in range(3):
            await post(http, there.url)
        assert there.connections == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"220 mail.example ESMTP\r\n", "Expected HTTP/"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + PIECE, "without an end"),
    ],
    ids=["another protocol", "two lengths", "an upgrade", "an endless head"],
)
async def test_staff_is_told_why_an_answer_could_not_be_read(
    data: bytes, reason: str, server: Server, http: HttpClient
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(data)
        await line.silence()

    server.script = script
    with pytest.raises(InDoubt, match=reason):
        await post(http, server.url)


@pytest.mark.parametrize("whole", [CHUNKED + b"0\r\nX: 1\r\n\r\n", answer(200, b"ok", "X-A: b", "Connection: close")])
async def test_nothing_of_an_answer_gets_into_the_text_of_an_error(
    whole: bytes, server: Server, http: HttpClient
) -> None:
    errors: list[str] = []
    for at in range(len(whole)):
        server.script = wire.once(whole[:at] + SECRET + whole[at:])
        try:
            await post(http, server.url)
        except SendError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert not [text for text in errors if SECRET.decode() in text]
