"""A provider that is down for ten minutes: nobody else notices, its own messages lose nothing, and go out afterwards."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.channels.wire import answer
from tests.faults.hostile import Vendors, accepts, says, vendors
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.processes.system import SCALE, Tenant, wait_for

#: No row of the matrix: what it compares depends on what else the machine does.
pytestmark = [pytest.mark.processes, pytest.mark.thorough]

DOWN_SECONDS = 600 * SCALE
ROUNDS, BURST = 3, 1_500
LANES = ("bulk", "normal", "urgent")


def at(vendor: Vendors, word: str) -> tuple[str, ...]:
    """An SMS account whose requests hold ``word``."""
    base = f"base_url={vendor.url}/{word}"
    return ("sms", "twilio", base, f"account_sid=AC{'0' * 32}", "from_number=+15005550006", "auth_token=x")


def burst(shop: Tenant) -> float:
    """Messages a second, from their acceptance to the last one's record."""
    begun = time.monotonic()
    ids = shop.send_many(BURST, "sms")
    sent = "SELECT count(*) FROM message WHERE id = ANY(%s::uuid[]) AND status = 'sent'"
    wait_for(lambda: shop.system.query(sent, ids)[0][0] == BURST, 60, "the whole burst")
    return BURST / (time.monotonic() - begun)


def of_lane(system: FaultSystem, ids: list[str], column: str) -> float:
    """The median of ``column``, in seconds since 1970."""
    rows = system.query(f"SELECT extract(epoch FROM {column})::float8 FROM message WHERE id = ANY(%s::uuid[])", ids)
    return statistics.median(row[0] for row in rows)


def test_a_provider_that_is_down_costs_nobody_anything_but_time(system: FaultSystem) -> None:
    with vendors() as vendor:
        well, ill = tenant(system, at(vendor, "well")), tenant(system, at(vendor, "ill"))
        vendor.answers["/ill/"] = says(answer(503))
        burst(well)
        before = max(burst(well) for _ in range(ROUNDS))
        waiting = {lane: ill.send_many(150, "sms", priority=lane) for lane in LANES}
        down_until = time.monotonic() + DOWN_SECONDS
        wait_for(lambda: story(system, ill), 20, "an open breaker")
        during = max(burst(well) for _ in range(ROUNDS))
        time.sleep(max(0.0, down_until - time.monotonic()))  # the length of the outage is what is tried
        asked = vendor.asked["/ill/"]
        vendor.answers["/ill/"] = accepts
        wait_for(lambda: ill.statuses() == {"sent": 450}, 60, "everything that waited")
    # At a tenth of every duration the relays look, ring and probe ten times as often as they will, and that costs the others.
    assert during >= 0.7 * before, (before, during)
    assert asked < 450, "what waits is not tried"
    assert story(system, ill)[0] == "opened"
    assert story(system, ill)[-1] == "closed"
    assert set(story(system, ill)[1:-1]) == {"probed"}
    ends = {lane: of_lane(system, ids, "sent_at") for lane, ids in waiting.items()}
    assert max(ends["urgent"], ends["normal"]) < ends["bulk"]
    assert ends["urgent"] < ends["normal"] + 0.2, "one worker takes the urgent ones while another takes what is left"


def story(system: FaultSystem, shop: Tenant) -> list[str]:
    """What its breaker did, oldest first."""
    sql = "SELECT e.change FROM breaker_event e JOIN account a ON a.id = e.account_id WHERE a.service_id = %s ORDER BY e.id"
    return [change for (change,) in system.query(sql, shop.id)]
