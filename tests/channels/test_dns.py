"""How names are looked up: in threads of their own, never on the loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from channels.dns import Resolver
from tests.channels.loops import BOTH_LOOPS

pytestmark = BOTH_LOOPS


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
