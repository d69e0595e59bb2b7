"""The application and its one task."""

from __future__ import annotations

import os

import aiohttp
from procrastinate import App, PsycopgConnector

from benchmarks.peers.form import LOGIN, URL, form

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
_sessions: list[aiohttp.ClientSession] = []


@app.task(name="send")
async def send(number: int) -> None:
    """Send one SMS."""
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(headers=LOGIN))
    async with _sessions[0].post(URL, data=form(number)) as response:
        response.raise_for_status()
        await response.json()
