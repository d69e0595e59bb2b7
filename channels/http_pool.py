"""The kept-open HTTP connections of one process to everywhere: found by origin, opened with a checked address, dropped when idle.

Called by ``channels.http``, on its loop; ``channels.http2`` opens its connections by the same ``Opener``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from aiohappyeyeballs import start_connection

from channels.dns import Resolver
from channels.http_wire import Wire
from channels.urls import AddressRefused, refuse_private

CONNECT_SECONDS = 5.0
#: Shorter than the 5 s after which Node, Apache and uvicorn drop an idle connection, so that we drop it first.
IDLE_SECONDS = 4.0
#: Before the next address of a host is tried beside the first: RFC 8305.
NEXT_ADDRESS_SECONDS = 0.25

Address = tuple[int, int, int, str, tuple[Any, ...]]
P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads. ``host`` is ASCII, an address without brackets or a name."""

    tls: bool
    host: str
    port: int


class NoAddress(OSError):
    """The host's name could not be resolved."""


@cache
def tls_context() -> ssl.SSLContext:
    """What the system trusts; names are checked."""
    return ssl.create_default_context()


class Opener:
    """Opens connections. With ``public`` to public addresses only, which are looked at again at each connection."""

    def __init__(self, resolver: Resolver, *, public: bool) -> None:
        self._resolver = resolver
        self._public = public

    async def open(self, origin: Origin, made: Callable[[], P], tls: Callable[[], ssl.SSLContext]) -> P:
        """A new connection to ``origin`` for the protocol that is ``made``; ``tls`` gives the context where it takes one.

        Raises ``OSError``, after ``CONNECT_SECONDS`` at the latest.
        """
        async with asyncio.timeout(CONNECT_SECONDS):
            addresses = await self._addresses(origin.host, origin.port)
            if self._public:
                refuse_private(str(address[4][0]) for address in addresses)
            link = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
            try:
                _, protocol = await asyncio.get_running_loop().create_connection(
                    made,
                    sock=link,
                    ssl=tls() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
            except BaseException:
                link.close()
                raise
        return protocol

    async def close(self) -> None:
        """Nothing is open; connections belong to whoever asked for them."""
        await self._resolver.close()

    async def _addresses(self, host: str, port: int) -> list[Address]:
        literal = _literal(host, port)
        if literal:
            return [literal]
        try:
            found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        except AddressRefused:
            raise
        except OSError as error:
            raise NoAddress(error.errno, error.strerror) from error
        return [(each["family"], socket.SOCK_STREAM, 0, "", (each["host"], each["port"])) for each in found]


class Pool:
    """Connections by origin, opened by ``opener``."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._idle: defaultdict[Origin, list[tuple[Wire, float]]] = defaultdict(list)
        self._open: set[Wire] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self, origin: Origin) -> Wire:
        """A connection whose peer has not hung up, kept or new; the caller gives it back. Raises ``OSError``."""
        kept = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS  # the sweep comes by every second only
        while kept:
            wire, since = kept.pop()
            if since > oldest and not wire.stale:
                return wire
            self.drop(wire)
        wire = await self._connect(origin)
        if wire.hung_up:
            self.drop(wire)
            raise ConnectionResetError(errno.ECONNRESET, "closed by the peer as soon as it was open")
        return wire

    def give(self, origin: Origin, wire: Wire) -> None:
        """Keep ``wire`` for the next request to ``origin``, if it can carry one."""
        if self._closed or not wire.reusable:
            self.drop(wire)
            return
        loop = asyncio.get_running_loop()
        self._idle[origin].append((wire, loop.time()))
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._drop_idle)

    def drop(self, wire: Wire) -> None:
        """End ``wire`` now."""
        self._open.discard(wire)
        wire.abort()

    async def close(self) -> None:
        """End every connection, those in use too."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for wire in list(self._open):
            self.drop(wire)
        self._idle.clear()
        await self._opener.close()

    def _drop_idle(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for origin, kept in list(self._idle.items()):
            # The last given back is the first taken, so the old ones are in front.
            while kept and (kept[0][1] <= oldest or kept[0][0].closing):
                self.drop(kept.pop(0)[0])
            if not kept:
                del self._idle[origin]
        self._sweep = loop.call_later(IDLE_SECONDS / 4, self._drop_idle) if self._idle else None

    async def _connect(self, origin: Origin) -> Wire:
        wire = await self._opener.open(origin, Wire, tls_context)
        self._open.add(wire)
        return wire


def _literal(host: str, port: int) -> Address | None:
    """``host`` itself where it is an address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return (int(family), socket.SOCK_STREAM, 0, "", (host, port))
    return None
