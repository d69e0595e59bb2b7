"""A host is judged by every address it has, at each look-up, and the address that was judged is the one used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from channels import urls
from channels.base import NotSent, RecipientRefused
from channels.dns import PublicResolver
from channels.http import HttpClient, Reach
from channels.urls import AddressRefused
from tests.channels.loops import BOTH_LOOPS
from tests.channels.wire import Server, answer, answers

pytestmark = BOTH_LOOPS


@pytest.fixture(autouse=True)
def strict(loopback: None) -> None:
    """As in production: no private network is allowed."""
    urls.allow_private_networks([])


Lookup = Callable[..., list[tuple[Any, ...]]]


def lookups(*rounds: list[str]) -> tuple[Lookup, list[str]]:
    """A name server that answers differently each time, and the names it was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        found = rounds[min(len(asked), len(rounds) - 1)]
        asked.append(host)
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for kind, address in zip(kinds, found, strict=True)]

    return getaddrinfo, asked


@pytest.mark.parametrize("bad", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1"])
async def test_one_private_address_among_public_ones_refuses_the_host(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lookups(["1.1.1.1", bad])[0])
    resolver = PublicResolver()
    with pytest.raises(AddressRefused):
        await resolver.resolve("shop.example", 443)
    await resolver.close()


async def post(http: HttpClient, url: str) -> int:
    """A request to a URL that a service chose."""
    answered = await http.request("POST", url, headers={}, body=b"{}", timeout=1.0, reach=Reach.PUBLIC)
    return answered.status


async def test_the_checked_address_is_the_one_connected_to(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked and private when it is used: it is looked up once."""
    urls.allow_private_networks(["127.0.0.1/32"])
    lookup, asked = lookups(["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr("socket.getaddrinfo", lookup)
    monkeypatch.setattr(urls, "_may_be_plain", lambda host: True)
    server.script = answers(answer(204))
    assert await post(http, f"http://shop.example:{server.port}/") == 204
    assert asked == ["shop.example"]
    assert b"Host: shop.example" in server.requests[0]


async def test_a_name_that_turns_private_is_refused_at_its_next_look_up(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls.allow_private_networks(["127.0.0.1/32"])
    monkeypatch.setattr("channels.dns.CACHE_SECONDS", 0.01)
    monkeypatch.setattr("socket.getaddrinfo", lookups(["127.0.0.1"], ["127.0.0.2"])[0])
    monkeypatch.setattr(urls, "_may_be_plain", lambda host: True)
    server.script = answers(answer(204, b"", "Connection: close"))
    assert await post(http, f"http://shop.example:{server.port}/") == 204
    await asyncio.sleep(0.05)
    with pytest.raises(RecipientRefused) as caught:
        await post(http, f"http://shop.example:{server.port}/")
    assert caught.value.code == "address_refused"
    assert server.connections == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_a_name_with_a_private_address_is_never_connected_to(
    address: str, server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lookups([address])[0])
    with pytest.raises(RecipientRefused) as caught:
        await post(http, f"https://shop.example:{server.port}/")
    assert caught.value.code == "address_refused"
    assert address not in caught.value.detail
    assert server.connections == 0


async def test_a_private_address_in_the_url_is_never_connected_to_whatever_let_it_pass(
    server: Server, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.http.webhook_url", lambda to: to)
    with pytest.raises(RecipientRefused):
        await post(http, server.url)
    assert server.connections == 0


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "a..example", "xn--a.example"])
async def test_a_host_that_no_name_server_can_be_asked_for_is_refused_or_not_sent(host: str, http: HttpClient) -> None:
    with pytest.raises((RecipientRefused, NotSent)):
        await post(http, f"https://{host}/")
