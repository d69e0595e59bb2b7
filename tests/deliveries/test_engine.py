"""The start of a worker process: its engine is whole or not there, and without it the process ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from deliveries import lineage, tasks, watchdog
from deliveries.delivery import engine as engines
from deliveries.delivery.engine import Engine
from deliveries.delivery.recorder import Recorder
from deliveries.lineage import Guard


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any) -> Iterator[list[Engine]]:
    """The engines that this test made, in a process that has none."""
    settings.CHASKI_SPILL = str(tmp_path)
    monkeypatch.setattr(engines, "_engine", None)
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    monkeypatch.setattr(Recorder, "_run", lambda self: None)  # the thread alone
    found: list[Engine] = []
    real = Engine.__init__

    def note(self: Engine, worker: str) -> None:
        real(self, worker)
        found.append(self)

    monkeypatch.setattr(Engine, "__init__", note)
    yield found
    for each in found:
        each.finish(1)
        each.loop.call_soon_threadsafe(each.loop.stop)
        each._thread.join(5)
        each.loop.close()


def failing_once(real: Callable[[Recorder], None]) -> Callable[[Recorder], None]:
    failures = iter([RuntimeError("can't start new thread")])

    def start(self: Recorder) -> None:
        for failure in failures:
            raise failure
        real(self)

    return start


def test_an_engine_that_could_not_start_is_not_kept(monkeypatch: pytest.MonkeyPatch, made: list[Engine]) -> None:
    monkeypatch.setattr(Recorder, "start", failing_once(Recorder.start))
    with pytest.raises(RuntimeError):
        engines.engine()
    whole = engines.engine()
    assert whole is made[1]
    assert whole._accounts is not None, "it can send"
    assert whole.recorder._thread.ident is not None, "and record"
    assert engines.engine() is whole


def test_a_worker_whose_engine_does_not_start_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery logs what a receiver raises, and goes on without it."""
    ended: list[int] = []
    monkeypatch.setattr(tasks, "engine", lambda *_: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
    monkeypatch.setattr("os._exit", ended.append)
    with structlog.testing.capture_logs() as logs:
        tasks.worker_ready.send(sender=None)
    assert ended == [watchdog.EXIT_CODE]
    assert [log["event"] for log in logs] == ["worker_not_started"]
