"""The buckets themselves: in a real Valkey, shared by many, lost, away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import redis
from django.conf import settings

from channels.rates import Rate
from deliveries import cache, pacing
from deliveries.pacing import Ask, CacheAway, Grant, LocalBuckets, SharedBuckets, account_key, recipient_key

RATE = Rate(100)
KEY = account_key(7)
AHEAD = 0.25


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    """Empty, and remembering for long enough that an unknown bucket is a free one."""
    client = redis.Redis.from_url(cache.redis_url(settings.CHASKI_CACHE_URL))
    client.flushdb()
    client.set("chaski:pace:epoch", 1)
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def buckets(valkey: redis.Redis) -> SharedBuckets:
    return SharedBuckets()


def reserve(buckets: SharedBuckets, wanted: int, *, ahead: float = AHEAD, rate: Rate = RATE, key: str = KEY) -> Grant:
    [grant] = buckets.reserve([Ask(key, rate, wanted, ahead)])
    return grant


def test_slots_come_at_even_distances_and_no_further_ahead_than_asked(buckets: SharedBuckets) -> None:
    first = reserve(buckets, 1000)
    assert first.first == 0
    assert first.slots == AHEAD * RATE.count + 1
    more = reserve(buckets, 1000)
    assert more.slots <= 5  # what has become free since
    assert more.first == pytest.approx(first.slots * RATE.interval, abs=0.05)


def test_however_many_ask_together_they_get_what_the_rate_allows(valkey: redis.Redis) -> None:
    """Eight, each with a connection of its own as eight processes have, for a second."""
    begun, until = time.monotonic(), time.monotonic() + 1.0

    def take(_: int) -> list[float]:
        mine, found = SharedBuckets(), []
        while time.monotonic() < until:
            grant = reserve(mine, 10)
            now = time.monotonic()
            found += [now + grant.first + n * grant.interval for n in range(grant.slots)]
            time.sleep(0.02)  # as a claim takes its time
        return found

    with ThreadPoolExecutor(8) as eight:
        moments = sorted(moment for some in eight.map(take, range(8)) for moment in some)
    counts = [sum(1 for moment in moments if start <= moment < start + 0.5) for start in moments]
    assert max(counts) <= RATE.count * 0.5 * 1.05 + 1
    assert len(moments) >= 0.95 * RATE.count * (moments[-1] - begun)


def test_buckets_are_apart(buckets: SharedBuckets) -> None:
    reserve(buckets, 1000)
    assert reserve(buckets, 1, key=account_key(8)).first == 0
    here, there = recipient_key(7, "+56912345678"), recipient_key(7, "+56987654321")
    grants = buckets.reserve(
        [Ask(here, Rate(1, 6.0), 1, AHEAD), Ask(here, Rate(1, 6.0), 1, AHEAD), Ask(there, Rate(1), 1, 0)]
    )
    assert [grant.slots for grant in grants] == [1, 0, 1]
    assert grants[1].first == pytest.approx(6.0, abs=0.1)


def test_the_cache_learns_no_address(buckets: SharedBuckets, valkey: redis.Redis) -> None:
    reserve(buckets, 1, key=recipient_key(7, "+56912345678"))
    assert not any(b"56912345678" in key for key in valkey.keys("chaski:pace:*"))


def test_a_cache_that_lost_everything_lets_nobody_send_twice_as_fast(
    buckets: SharedBuckets, valkey: redis.Redis
) -> None:
    slow = Rate(1, 6.0)
    before = reserve(buckets, 1000).slots
    valkey.flushdb()
    after = reserve(buckets, 1000)
    assert before == 26
    assert after.slots == 0
    assert after.first == pytest.approx(AHEAD + RATE.interval, abs=0.05), "what was taken ahead is awaited"
    assert reserve(buckets, 1, rate=slow, key=recipient_key(7, "x")).first == pytest.approx(6.0 + AHEAD, abs=0.1)


def test_what_was_not_used_can_be_given_back_by_the_last_who_took(buckets: SharedBuckets) -> None:
    mine = reserve(buckets, 10)
    assert buckets.give_back(KEY, mine, 9)
    assert reserve(buckets, 1).first <= RATE.interval
    mine, theirs = reserve(buckets, 5), reserve(buckets, 5)
    assert not buckets.give_back(KEY, mine, 5)
    assert buckets.give_back(KEY, theirs, 5)


def test_a_vendors_wish_holds_for_all(buckets: SharedBuckets) -> None:
    buckets.stop(KEY, 2.0)
    assert reserve(SharedBuckets(), 1).first == pytest.approx(2.0, abs=0.1)
    buckets.stop(KEY, 0.5)
    assert reserve(SharedBuckets(), 1).first > 1.5, "a shorter one takes nothing back"


def test_a_cache_that_hangs_is_not_asked_by_each_claim(buckets: SharedBuckets, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hung:
        def eval(self, *_: object) -> None:
            asked.append(1)
            raise redis.TimeoutError

    monkeypatch.setattr(cache, "client", Hung)
    for _ in range(3):
        with pytest.raises(CacheAway):
            reserve(buckets, 1)
    assert len(asked) == 1


def test_without_a_cache_each_process_takes_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    local, sent = LocalBuckets(), []
    for _ in range(400):
        [grant] = local.reserve([Ask(KEY, RATE, 50, AHEAD)], sharers=4)
        sent += [clock + grant.first + n * grant.interval for n in range(grant.slots)]
        clock += 0.01
    assert len(sent) == pytest.approx(4.0 * RATE.count / 4 + AHEAD * RATE.count / 4, abs=2)
    assert min(later - earlier for earlier, later in pairwise(sent)) >= 4 * RATE.interval - 1e-6


def test_what_one_waits_for_is_told_for_those_that_wait(buckets: SharedBuckets) -> None:
    reserve(buckets, 26)
    found = pacing.waits({7: RATE, 8: RATE})
    assert found == {7: pytest.approx(0.26, abs=0.05)}
    assert pacing.waits({}) == {}
