"""What a vendor sees of a rate that two workers keep together, by the simulator's own ledger."""

from __future__ import annotations

import json
from bisect import bisect_left
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from config import processes
from tests.processes.system import System, wait_for

pytestmark = pytest.mark.processes


def times(system: System, ids: set[str]) -> list[datetime]:
    """When the simulator accepted each of ``ids``."""
    lines = (json.loads(line) for line in system.accepts.read_text().splitlines())
    return sorted(datetime.fromisoformat(line["time"]) for line in lines if line["message_id"] in ids)


def sent_at_a_rate(system: System, count: int, rate: int) -> tuple[float, int]:
    """How much of an account's ``rate`` (a second) was used, and by how many workers; never more of it in any second."""
    shop = system.new_service((*system.twilio(), f"rate={rate}/s"))
    ids = {str(message_id) for message_id in shop.send_many(count)}
    wait_for(lambda: len(times(system, ids)) == count, 60, "all of them at the simulator")
    seen = times(system, ids)
    for number, start in enumerate(seen):
        until = bisect_left(seen, start + timedelta(seconds=1))
        assert until - number <= rate * 1.05 + 1
    workers = system.query("SELECT count(DISTINCT worker) FROM attempt WHERE message_id = ANY(%s::uuid[])", sorted(ids))
    return (count - 1) / (seen[-1] - seen[0]).total_seconds() / rate, int(workers[0][0])


def test_the_rate_is_used_up_and_never_more(system: System) -> None:
    used, _ = sent_at_a_rate(system, 240, 60)
    assert used >= 0.9, "a busy machine may take a little"


@pytest.mark.thorough
def test_eight_workers_keep_one_rate_together(tmp_path: Path) -> None:
    with System(tmp_path) as system:
        for number in range(3, 9):
            system.supervisor.start(processes.worker(number))
        beating = "SELECT count(*) FROM heartbeat WHERE kind = 'worker'"
        wait_for(lambda: system.query(beating) == [(8,)], 90, "eight workers")
        used, workers = sent_at_a_rate(system, 750, 50)
    assert workers > 4
    assert used >= 0.95


def test_one_person_is_written_to_at_their_own_rate(system: System) -> None:
    shop = system.new_service((*system.twilio(), "recipient_rate=1/s"))
    ids = {str(shop.send("sms", "+56912345678").id) for _ in range(3)}
    wait_for(lambda: len(times(system, ids)) == 3, 20, "all of them at the simulator")
    assert all((later - earlier).total_seconds() > 0.9 for earlier, later in pairwise(times(system, ids)))
