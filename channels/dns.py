"""How host names become addresses: in threads of its own, for a short time from memory, and refused where they are private.

Called by ``channels.http_pool`` and ``channels.smtp_connections``. A slow name server fills these threads only, never
the process's default executor.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import suppress

from aiohttp.abc import AbstractResolver, ResolveResult

from channels.urls import refuse_private

#: At once, of one resolver. They do nothing but wait: up to 10 s each for a name server that is silent (resolv.conf's defaults),
#: so that it takes a dozen new silent names a second to hold up the others.
THREADS = 128
CACHE_SECONDS = 10.0

_Question = tuple[str, int, int]
_Found = list[tuple[int, str]]


class Resolver(AbstractResolver):
    """``getaddrinfo`` with one look-up for all who ask for the same, kept for ``CACHE_SECONDS``.

    Belongs to the loop of its first look-up. Who gives up before a thread is free leaves the queue. A look-up that has begun
    cannot be stopped: who asks for the same name again waits for it too instead of taking another thread.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(THREADS)
        self._asked: dict[_Question, asyncio.Future[_Found | Exception]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises ``OSError``."""
        found = await self._answer((host, port, family))
        if isinstance(found, Exception):
            raise found
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    async def close(self) -> None:
        """Nothing is open; a look-up that hangs is not waited for."""

    async def _answer(self, question: _Question) -> _Found | Exception:
        asked = self._asked.get(question)
        if asked is None:
            await self._free.acquire()
            asked = self._begin(question)
        return await asyncio.shield(asked)

    def _begin(self, question: _Question) -> asyncio.Future[_Found | Exception]:
        """Look ``question`` up in the thread that is free, unless another did meanwhile."""
        if question in self._asked:
            self._free.release()
            return self._asked[question]
        loop = asyncio.get_running_loop()
        asked = self._asked[question] = loop.create_future()
        # A daemon: the process does not wait for it at its end, as it would for an executor's.
        thread = threading.Thread(target=self._look_up, args=(loop, question), name="dns", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads for this process
            self._tell(question, OSError(errno.EAGAIN, "no thread could be started to look it up"))
        return asked

    def _look_up(self, loop: asyncio.AbstractEventLoop, question: _Question) -> None:
        """In the thread."""
        found: _Found | Exception
        try:
            found = _addresses(*question)
        except Exception as error:  # noqa: BLE001 - raised to whoever asked
            found = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._tell, question, found)

    def _tell(self, question: _Question, found: _Found | Exception) -> None:
        self._free.release()
        self._asked[question].set_result(found)
        if isinstance(found, Exception):
            del self._asked[question]
        else:
            asyncio.get_running_loop().call_later(CACHE_SECONDS, self._asked.pop, question)


class PublicResolver(Resolver):
    """Refuses a host unless every address it has is public: one bad one among good ones is enough."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``, all public. Raises ``AddressRefused`` or another ``OSError``."""
        results = await super().resolve(host, port, family)
        refuse_private(result["host"] for result in results)
        return results


def _addresses(host: str, port: int, family: int) -> _Found:
    try:
        infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "that is no host name") from error
    return [(int(kind), str(address[0])) for kind, _, _, _, address in infos]
