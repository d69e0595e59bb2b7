"""A queue that was renamed is drained by those who take from its successor, and one that nobody takes is named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from config import processes
from config.celery import NICENESS
from config.processes import Process
from tests.contracts.wire import task
from tests.processes.system import System, wait_for

pytestmark = pytest.mark.processes


@contextmanager
def worker(system: System, number: int, queues: str) -> Iterator[None]:
    """One more worker, of a release in which `slow` was renamed to `bulk`."""
    usual = processes.worker(number, queues)
    command = tuple("tests.processes.retiring" if word == "config" else word for word in usual.command)
    system.supervisor.start(Process(usual.name, command, usual.stage, usual.grace_seconds))
    sql = "SELECT queues FROM heartbeat WHERE name LIKE %s AND seen_at > now() - interval '8 seconds'"
    try:
        wait_for(lambda: system.query(sql, f"worker{number}@%"), 60, f"worker{number}")
        yield
    finally:
        system.supervisor.end(usual.name)


def niceness(system: System, number: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, system.supervisor.children[f"worker{number}"].popen.pid)


def findings(system: System) -> dict[str, Any]:
    answer = system.manage.run("doctor", "--json", codes=(0, 1, 3)).document
    return {finding["check"]: finding for finding in answer["findings"]}


def test_a_retired_queue_is_drained_by_the_workers_of_its_successor(system: System) -> None:
    broker = system.broker()
    bell = task("deliver.sms", channel="sms", lane="bulk", version=1, ids=[], queue="slow")
    for _ in range(3):
        broker.lpush("slow", json.dumps(bell))
    found = findings(system)["queue slow"]
    assert (found["level"], "3 tasks wait" in found["found"], "RETIRED_QUEUES" in found["fix"]) == (
        "degraded",
        True,
        True,
    )
    with worker(system, 11, "urgent"):
        assert broker.llen("slow") == 3, "it takes urgent messages only"
        assert niceness(system, 11) == 0
        with worker(system, 12, "bulk"):
            assert niceness(system, 12) == NICENESS, "it lets the urgent ones go first"
            wait_for(lambda: not broker.llen("slow"), 15, "the end of the retired queue")
            broker.lpush("slow", json.dumps(bell))
            wait_for(lambda: not broker.llen("slow"), 15, "what an old publisher still rings")
            assert "slow" in system.query("SELECT queues FROM heartbeat WHERE name LIKE 'worker12@%%'")[0][0].split(",")
            assert "queue slow" not in findings(system)
    broker.close()
