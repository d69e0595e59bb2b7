"""How names are looked up: in threads of their own, never on the loop."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from channels.base import NotSent
from channels.dns import Resolver
from channels.http import HttpClient
from tests.channels.loops import BOTH_LOOPS
from tests.channels.wire import Server, answer, answers

pytestmark = BOTH_LOOPS

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Silent:
    """A name server that says nothing of names that begin with ``slow`` until it is told to."""

    asked: list[str] = field(default_factory=list)
    speaks: threading.Event = field(default_factory=threading.Event)

    def __call__(self, host: str, *_: Any) -> list[tuple[int, str]]:
        """In place of ``channels.dns._addresses``."""
        self.asked.append(host)
        if host.startswith("slow"):
            self.speaks.wait(30)
        return [(socket.AF_INET, "127.0.0.1")]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    made = Silent()
    monkeypatch.setattr("channels.dns._addresses", made)
    yield made
    made.speaks.set()


async def status(http: HttpClient, server: Server, host: str, seconds: float = 5.0) -> int:
    """Of the answer to a request to ``server`` under the name ``host``."""
    given = await http.request("POST", f"http://{host}:{server.port}/", headers={}, timeout=seconds)
    return given.status


async def lost(http: HttpClient, server: Server, *hosts: str) -> None:
    """Requests to ``hosts`` that are given up soon."""
    given = await asyncio.gather(*(status(http, server, host, 0.05) for host in hosts), return_exceptions=True)
    assert {type(error) for error in given} == {NotSent}


async def test_beside_many_silent_names_another_is_found_in_time(
    silent: Silent, server: Server, http: HttpClient
) -> None:
    server.script = answers(answer(200))
    waiting = asyncio.gather(*(status(http, server, f"slow-{n}.example") for n in range(100)))
    async with asyncio.timeout(4):
        while len(silent.asked) < 100:  # noqa: ASYNC110 - it is threads that ask
            await asyncio.sleep(0.01)
    assert await status(http, server, "good.example", 2.0) == 200
    silent.speaks.set()
    assert set(await waiting) == {200}


async def test_names_that_nobody_waits_for_any_more_are_not_looked_up(
    silent: Silent, server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.dns.THREADS", 2)
    server.script = answers(answer(200))
    await lost(http, server, *(f"slow-{n}.example" for n in range(40)))
    silent.speaks.set()
    assert await status(http, server, "good.example") == 200
    assert sorted(silent.asked) == ["good.example", "slow-0.example", "slow-1.example"]


async def test_a_silent_name_takes_one_thread_however_often_it_is_asked_for(
    silent: Silent, server: Server, http: HttpClient
) -> None:
    server.script = answers(answer(200))
    await lost(http, server, "slow.example", "slow.example")
    await lost(http, server, "slow.example")
    silent.speaks.set()
    assert await status(http, server, "slow.example") == 200
    assert silent.asked == ["slow.example"]


async def test_a_failed_look_up_is_not_kept(server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    server.script = answers(answer(200))
    monkeypatch.setattr("channels.dns._addresses", failing)
    with pytest.raises(NotSent, match="Temporary failure"):
        await status(http, server, "good.example")
    monkeypatch.setattr("channels.dns._addresses", Silent())
    assert await status(http, server, "good.example") == 200


async def test_a_look_up_without_a_thread_is_not_sent_and_takes_no_place(
    silent: Silent, server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("channels.dns.THREADS", 1)
    server.script = answers(answer(200))
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", no_more)
        with pytest.raises(NotSent, match="no thread"):
            await status(http, server, "good.example")
    assert await status(http, server, "good.example") == 200


def test_a_process_ends_without_waiting_for_a_look_up_that_hangs() -> None:
    program = """
import asyncio, time
from channels import dns

dns._addresses = lambda *_: time.sleep(60)

async def main():
    resolver = dns.Resolver()
    looking = asyncio.ensure_future(resolver.resolve("slow.example"))
    await asyncio.sleep(0.05)
    looking.cancel()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=30)


async def test_the_loop_goes_on_while_a_name_server_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def slow(*_: Any, **__: Any) -> list[Any]:
        threads.append(threading.current_thread().name)
        time.sleep(0.2)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]

    monkeypatch.setattr("socket.getaddrinfo", slow)
    resolver = Resolver()
    looking = asyncio.ensure_future(resolver.resolve("vendor.example", 443))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5
    assert threads[0].startswith("dns")
    assert [found["host"] for found in await looking] == ["192.0.2.1"]
    await resolver.close()


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "a..b", ".", "xn--a.example"])
async def test_a_name_that_is_none_fails_as_a_look_up_does(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def without_network(host: str, *args: Any, **kwargs: Any) -> Any:
        host.encode("idna")
        return real("", *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", without_network)
    resolver = Resolver()
    with pytest.raises(OSError, match=r"."):
        await resolver.resolve(host, 443)
    await resolver.close()


async def test_closing_does_not_wait_for_a_look_up_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(0.5))
    resolver = Resolver()
    looking = asyncio.ensure_future(resolver.resolve("vendor.example", 443))
    await asyncio.sleep(0.01)
    begun = time.monotonic()
    await resolver.close()
    assert time.monotonic() - begun < 0.2
    looking.cancel()
