"""The ringer: the first bell goes at once, what comes close upon it shares the next, and the urgent wait for nobody."""

from __future__ import annotations

import threading
import time
from uuid import UUID, uuid4

import pytest

from chaski.vocabulary import Lane
from deliveries import doorbell
from deliveries.doorbell import Doorbell, Publisher
from tests.processes.system import wait_for


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Lane, int]]:
    """When the ringer rang, for which lane and for how many."""
    found: list[tuple[float, Lane, int]] = []

    def note(publisher: Publisher, channel: str, lane: Lane, ids: list[str]) -> None:
        found.append((time.monotonic(), lane, len(ids)))

    monkeypatch.setattr(doorbell, "publish_ids", note)
    return found


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


def test_the_first_bell_goes_at_once_and_what_comes_close_upon_it_shares_the_next(
    rounds: list[tuple[float, Lane, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "LONGEST_REST_SECONDS", 0.3)
    bell = Doorbell()
    bell.ring("sms", Lane.NORMAL, ids(40))
    wait_for(lambda: rounds, 2, "the first bell")
    for _ in range(5):
        bell.ring("sms", Lane.NORMAL, ids(1))
    wait_for(lambda: len(rounds) > 1, 2, "the second bell")
    assert [count for _, _, count in rounds] == [40, 5]
    assert rounds[1][0] - rounds[0][0] >= 0.25


def test_the_urgent_wait_for_nobody(rounds: list[tuple[float, Lane, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "LONGEST_REST_SECONDS", 30.0)
    monkeypatch.setattr(doorbell, "REST_SECONDS", 30.0)
    bell = Doorbell()
    bell.ring("sms", Lane.BULK, ids(1))
    wait_for(lambda: rounds, 2, "the first bell")
    ringing = threading.Thread(target=bell.ring, args=("sms", Lane.URGENT, ids(1)))
    ringing.start()
    wait_for(lambda: len(rounds) > 1, 2, "the urgent bell")
    ringing.join()
    assert rounds[1][1] is Lane.URGENT
