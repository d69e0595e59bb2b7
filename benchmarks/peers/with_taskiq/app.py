"""The broker and its one task."""

from __future__ import annotations

import os

import aiohttp
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import ListQueueBroker

from benchmarks.peers.form import LOGIN, URL, form

broker = ListQueueBroker(os.environ["REDIS_URL"], queue_name="sms")


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _open(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession(headers=LOGIN, connector=aiohttp.TCPConnector(limit=100))


@broker.task(task_name="send")
async def send(number: int) -> None:
    """Send one SMS."""
    async with broker.state.session.post(URL, data=form(number)) as response:
        response.raise_for_status()
        await response.json()
