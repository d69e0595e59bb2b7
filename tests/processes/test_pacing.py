"""What a vendor sees of a rate that two workers keep together, by the simulator's own ledger."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise

import pytest

from tests.processes.system import System, wait_for

pytestmark = pytest.mark.processes
RATE, COUNT = 60, 240


def times(system: System, ids: set[str]) -> list[datetime]:
    """When the simulator accepted each of ``ids``."""
    lines = (json.loads(line) for line in system.accepts.read_text().splitlines())
    return sorted(datetime.fromisoformat(line["time"]) for line in lines if line["message_id"] in ids)


def test_the_rate_is_used_up_and_never_more(system: System) -> None:
    shop = system.new_service((*system.twilio(), f"rate={RATE}/s"))
    ids = {str(message_id) for message_id in shop.send_many(COUNT)}
    wait_for(lambda: len(times(system, ids)) == COUNT, 30, "all of them at the simulator")
    seen = times(system, ids)
    took = (seen[-1] - seen[0]).total_seconds()
    for start in seen:
        within = sum(1 for moment in seen if 0 <= (moment - start).total_seconds() < 1.0)
        assert within <= RATE * 1.05 + 1
    assert (COUNT - 1) / took >= 0.9 * RATE, "a busy machine may take a little"
    workers = system.query("SELECT DISTINCT worker FROM attempt WHERE message_id = ANY(%s::uuid[])", sorted(ids))
    assert workers, "whoever sent them"


def test_one_person_is_written_to_at_their_own_rate(system: System) -> None:
    shop = system.new_service((*system.twilio(), "recipient_rate=1/s"))
    ids = {str(shop.send("sms", "+56912345678").id) for _ in range(3)}
    wait_for(lambda: len(times(system, ids)) == 3, 20, "all of them at the simulator")
    assert all((later - earlier).total_seconds() > 0.9 for earlier, later in pairwise(times(system, ids)))
