"""The witnesses of the tests of the lineage, which know nothing yet, an engine without a worker around it, and a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from chaski.vocabulary import Lane
from deliveries import lineage
from deliveries.cache import redis_url
from deliveries.delivery import engine as engines
from deliveries.delivery.engine import Engine
from deliveries.delivery.recorder import Recorder
from deliveries.lineage import Guard
from deliveries.witnesses import KEY, FileWitness, ValkeyWitness
from tests.deliveries import steps


@pytest.fixture
def valkey() -> Iterator[ValkeyWitness]:
    client = redis.Redis.from_url(redis_url(settings.CHASKI_CACHE_URL))
    client.delete(KEY)
    yield ValkeyWitness(client)
    client.close()


@pytest.fixture
def file(tmp_path: Path) -> FileWitness:
    return FileWitness(tmp_path / "folder" / "witness")


@pytest.fixture
def passes() -> Iterator[Callable[[float], object]]:
    """Let so many seconds pass by the database's clock, for the rest of the test."""
    with ExitStack() as stack:
        yield lambda seconds: stack.enter_context(steps.later(timedelta(seconds=seconds)))


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Lane]]:
    """The bells that the engine rang."""
    found: list[tuple[str, Lane]] = []

    class Noting:
        def ring(self, channel: str, lane: Lane) -> None:
            found.append((channel, lane))

    monkeypatch.setattr(engines, "doorbell", Noting())
    return found


@pytest.fixture
def worker(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, rung: list[Any]) -> Iterator[Engine]:
    settings.CHASKI_SPILL = str(tmp_path)
    over = threading.Event()

    def record_until_it_is_over(self: Recorder) -> None:
        while not over.is_set():
            self._record(self._arrived(0.05))

    monkeypatch.setattr(Recorder, "_run", record_until_it_is_over)
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    made = Engine("worker-of-a-test")
    made.start()
    yield made
    made.finish(5)
    made.loop.call_soon_threadsafe(made.loop.stop)
    made._thread.join(5)
    over.set()
    made.recorder._thread.join(5)
    made._claims.close()
    made.recorder._connection.close()
    made.loop.close()
