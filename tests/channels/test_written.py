"""The moment of the request: known wherever bytes left, also when the call is cut off, and unknown where none did."""

from __future__ import annotations

import asyncio
import time

import pytest

from channels.base import SendError
from channels.http import HttpClient
from channels.written import watch_writing
from tests.channels.postbox import account, mail
from tests.channels.smtp_wire import Act, Mailserver
from tests.channels.wire import Line, Server, answer, answers


async def call(http: HttpClient, url: str) -> None:
    """One request."""
    await http.request("POST", url, headers={}, body=b"x", timeout=30.0)


async def test_a_request_over_http_is_written_between_its_begin_and_its_answer(
    server: Server, http: HttpClient
) -> None:
    server.script = answers(answer(200))
    begun = time.monotonic()
    writing = watch_writing()
    await call(http, server.url)
    assert writing.at is not None
    assert begun <= writing.at <= time.monotonic()


async def test_a_call_that_is_cut_off_still_tells_when_it_wrote(server: Server, http: HttpClient) -> None:
    there = asyncio.Event()

    async def hangs(line: Line) -> None:
        await line.request()
        there.set()
        await line.silence()

    server.script = hangs
    writing = watch_writing()
    calling = asyncio.ensure_future(call(http, server.url))
    await there.wait()
    seen = time.monotonic()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert writing.at is not None
    assert writing.at <= seen


async def test_a_connection_that_never_was_writes_nothing(http: HttpClient) -> None:
    async with Server.started() as gone:
        url = gone.url
    writing = watch_writing()
    with pytest.raises(SendError):
        await call(http, url)
    assert writing.at is None


async def test_each_of_many_calls_at_once_has_its_own_moment(server: Server, http: HttpClient) -> None:
    server.script = answers(answer(200))

    async def one(seconds: float) -> float:
        writing = watch_writing()
        await asyncio.sleep(seconds)
        await call(http, server.url)
        assert writing.at is not None
        return writing.at

    first, second = await asyncio.gather(one(0.0), one(0.2))
    assert second - first > 0.1


@pytest.mark.parametrize(("reply", "written"), [("dot", True), ("DATA", False), ("RCPT", False)])
async def test_a_mail_is_written_with_its_final_dot(reply: str, written: bool, server: Server) -> None:
    server.script = Mailserver({reply: Act.DROP})
    provider = account(server)
    writing = watch_writing()
    with pytest.raises(SendError):
        await provider.send(mail())
    await provider.close()
    assert (writing.at is not None) == written
