"""The simulator as a process: its HTTP and SMTP ports and its ledger.

Called by `manage.py simulator` (``serve``) and by tests (``running``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from weakref import WeakSet

from aiohttp import web
from aiosmtpd.smtp import SMTP

from channels.simulator.desk import Desk
from channels.simulator.ledger import Ledger
from channels.simulator.receipts import Postman
from channels.simulator.smtp import session_protocol
from channels.simulator.wires import Wires

HANG_SECONDS = 60.0
LATE_SECONDS = 5.0
_BACKLOG = 1024
_BODY_LIMIT = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """Where a started simulator listens."""

    host: str
    port: int
    smtp_port: int
    desk: Desk

    @property
    def url(self) -> str:
        """The base of every HTTP vendor: ``{url}/twilio``, ``{url}/telegram``, ``{url}/webhook``."""
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def running(
    ledger_path: Path,
    *,
    port: int = 0,
    smtp_port: int = 0,
    host: str = "127.0.0.1",
    seed: str | None = None,
    fault_rate: float = 0.0,
    hang_seconds: float = HANG_SECONDS,
    late_seconds: float = LATE_SECONDS,
) -> AsyncIterator[Running]:
    """A simulator on ``port`` and ``smtp_port`` (0 picks free ones) while the block runs.

    ``fault_rate`` is the share, 0 to 1, of attempts to ordinary recipients that fail, the same ones for the
    same ``seed``. ``hang_seconds`` is the length of a hang, ``late_seconds`` of a late receipt. Raises
    ``OSError`` where a port is taken or the ledger cannot be written.
    """
    ledger = Ledger(ledger_path)
    desk = Desk(ledger, seed=seed, fault_rate=fault_rate, hang_seconds=hang_seconds, late_seconds=late_seconds)
    postman = Postman(late_seconds)
    runner = _runner(Wires(desk, postman))
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        await site.start()
        async with _mail_port(desk, host, smtp_port) as found:
            yield Running(host, runner.addresses[0][1], found, desk)
    finally:
        desk.close()
        await runner.cleanup()
        await postman.close()
        await ledger.close()


@asynccontextmanager
async def _mail_port(desk: Desk, host: str, port: int) -> AsyncIterator[int]:
    """The SMTP port; sessions that are open at the end are cut off, for waiting for them could take for ever."""
    sessions = WeakSet[SMTP]()

    def session() -> SMTP:
        made = session_protocol(desk)
        sessions.add(made)
        return made

    listening = await asyncio.get_running_loop().create_server(session, host, port, backlog=_BACKLOG)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        desk.close()
        await asyncio.sleep(0)  # what hung has now been let go
        for open_session in sessions:
            if open_session.transport is not None:
                cast(asyncio.WriteTransport, open_session.transport).abort()


def _runner(wires: Wires) -> web.AppRunner:
    app = web.Application(client_max_size=_BODY_LIMIT)
    app.add_routes(wires.routes())
    return web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
