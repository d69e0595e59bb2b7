"""Bodies that come slowly, or never: they keep no thread of a real server from other calls for longer than seconds."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from deliveries.api.bodies import DRAIN_SECONDS, READ_SECONDS
from tests.api.server import THREADS, WORKERS, Server
from tests.factories import Caller

pytestmark = pytest.mark.django_db(transaction=True)


def announced(server: Server, path: str, key: str = "") -> socket.socket:
    """A connection on which a large body was announced, and does not come."""
    where = urlsplit(server.url)
    wire = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 40000000\r\n"
    wire.sendall((head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode())
    return wire


def to_the_end(wire: socket.socket) -> bytes:
    """All that the server says until it ends the connection, which it does although nobody asked it to."""
    said = b""
    with wire, suppress(ConnectionResetError):
        while piece := wire.recv(65_536):
            said += piece
    return said


NO_ACCOUNT = "/receipts/00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("path", ["/api/v1/messages", "/api/v1/batches", NO_ACCOUNT])
def test_bodies_that_never_come_keep_no_thread_from_other_calls(server: Server, sender: Caller, path: str) -> None:
    key = "" if path == NO_ACCOUNT else sender.key
    begun = time.monotonic()
    wires = [announced(server, path, key) for _ in range(WORKERS * THREADS)]  # one for each thread there is
    assert server.request("GET", "/health/live", timeout=15).status == 200
    assert time.monotonic() - begun < DRAIN_SECONDS + 5
    said = [to_the_end(wire) for wire in wires]
    assert time.monotonic() - begun < DRAIN_SECONDS + 10
    assert {each.split(b" ", 2)[1] for each in said} == {b"413"}


@pytest.mark.parametrize("path", ["/api/v1/messages", NO_ACCOUNT])
def test_a_body_that_trickles_is_not_waited_for_and_ends_with_its_connection(
    server: Server, sender: Caller, path: str
) -> None:
    begun = time.monotonic()
    wire = announced(server, path, "" if path == NO_ACCOUNT else sender.key)
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - begun < DRAIN_SECONDS + 5:
            wire.sendall(request)
            if select.select([wire], [], [], 0.2)[0]:
                break
    assert time.monotonic() - begun < DRAIN_SECONDS + 2
    with suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(2_000):
            wire.sendall(request)
    assert to_the_end(wire).count(b"HTTP/1.1") == 1


def test_a_receipt_that_never_comes_whole_is_not_waited_for(server: Server, transactional_db: None) -> None:
    begun = time.monotonic()
    where = urlsplit(server.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=20) as wire:
        wire.sendall(f"POST {NO_ACCOUNT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf".encode())
        assert b" 400 " in to_the_end(wire).splitlines()[0]
    assert time.monotonic() - begun < READ_SECONDS + 5
