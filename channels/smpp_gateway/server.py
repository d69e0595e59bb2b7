"""The gateway as a process: its HTTP port, and the accounts that it reads again and again.

Called by `manage.py smpp` (``serve``) and by tests (``running``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from aiohttp import web

from channels.http import HttpClient
from channels.smpp_gateway.account import USUAL, GatewayAccount, Patience
from channels.smpp_gateway.desk import Desk

log = structlog.get_logger(__name__)

READ_SECONDS = 5.0
#: Between two readings that workers ask for because they know an account that is not known here.
_AT_LEAST_SECONDS = 0.5
_BODY_LIMIT = 256 * 1024

#: The accounts as they are now; None where that cannot be told, and they stay as they were. Called in a thread of its own.
Read = Callable[[], Sequence[GatewayAccount] | None]


@dataclass(frozen=True, slots=True)
class Running:
    """Where a started gateway listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What an account's ``base_url`` says."""
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def running(
    read: Read, *, host: str = "127.0.0.1", port: int = 0, patience: Patience = USUAL, every: float = READ_SECONDS
) -> AsyncIterator[Running]:
    """A gateway on ``port`` (0 picks a free one) while the block runs, for the accounts that ``read`` gives.

    At its end it takes nothing more, gives what is under way some seconds, and unbinds. Raises ``OSError`` where the port is
    taken.
    """
    with ThreadPoolExecutor(1, "smpp-accounts") as reader:
        async with HttpClient() as http:
            desk = Desk(http, patience)
            app = web.Application(client_max_size=_BODY_LIMIT)
            app.add_routes(desk.routes())
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            try:
                await web.TCPSite(runner, host, port).start()
                async with _following(desk, read, reader, every):
                    yield Running(host, runner.addresses[0][1])
            finally:
                await desk.close()
                await runner.cleanup()


@asynccontextmanager
async def _following(desk: Desk, read: Read, reader: ThreadPoolExecutor, every: float) -> AsyncIterator[None]:
    """The accounts have been read once, and are read again."""

    async def once() -> None:
        accounts = await asyncio.get_running_loop().run_in_executor(reader, read)
        if accounts is not None:
            await desk.set_up(accounts)

    async def forever() -> None:
        while True:
            await asyncio.sleep(min(every, _AT_LEAST_SECONDS))
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await desk.unaware.wait()
            desk.unaware.clear()
            try:
                await once()
            except Exception:  # the binds that there are must outlive whatever it is
                log.exception("smpp_accounts_not_read")

    await once()
    task = asyncio.create_task(forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
