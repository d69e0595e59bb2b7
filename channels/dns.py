"""How host names become addresses for the HTTP client: in threads of its own, and refused where they are
private.

Called by ``channels.http``. A slow name server fills these threads only, never the process's default
executor.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from channels.urls import refuse_private

_THREADS = 8


class Resolver(AbstractResolver):
    """``getaddrinfo`` in a bounded executor that belongs to one connection pool."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _addresses, host, port, family)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    async def close(self) -> None:
        """Let the threads end; a look-up that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class PublicResolver(Resolver):
    """Refuses a host unless every address it has is public: one bad one among good ones is enough."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``, all public. Raises ``AddressRefused`` or another ``OSError``."""
        results = await super().resolve(host, port, family)
        refuse_private(result["host"] for result in results)
        return results


def _addresses(host: str, port: int, family: int) -> list[tuple[int, str]]:
    try:
        infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "that is no host name") from error
    return [(int(kind), str(address[0])) for kind, _, _, _, address in infos]
