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
from deliveries.pacing import (
    LEAD_SECONDS,
    Ask,
    Buckets,
    CacheAway,
    Grant,
    LocalBuckets,
    SharedBuckets,
    account_key,
    recipient_key,
)

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
    assert first.first == LEAD_SECONDS
    assert first.slots == (AHEAD - LEAD_SECONDS) * RATE.count + 1
    more = reserve(buckets, 1000)
    assert more.slots <= 10  # what has become free since
    assert more.first == pytest.approx(LEAD_SECONDS + first.slots * RATE.interval, abs=0.1)


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
    assert reserve(buckets, 1, key=account_key(8)).first == LEAD_SECONDS
    here, there = recipient_key(7, "+56912345678"), recipient_key(7, "+56987654321")
    grants = buckets.reserve(
        [Ask(here, Rate(1, 6.0), 1, AHEAD), Ask(here, Rate(1, 6.0), 1, AHEAD), Ask(there, Rate(1), 1, AHEAD)]
    )
    assert [grant.slots for grant in grants] == [1, 0, 1]
    assert grants[1].first == pytest.approx(6.0 + LEAD_SECONDS, abs=0.1)


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
    assert before == 23
    assert after.slots == 0
    assert after.first == pytest.approx(AHEAD + RATE.interval, abs=0.05), "what was taken ahead is awaited"
    assert reserve(buckets, 1, rate=slow, key=recipient_key(7, "x")).first == pytest.approx(6.0 + AHEAD, abs=0.1)


def test_what_was_not_used_can_be_given_back_by_the_last_who_took(buckets: SharedBuckets) -> None:
    mine = reserve(buckets, 10)
    assert buckets.give_back(KEY, mine, 9)
    assert reserve(buckets, 1).first <= RATE.interval + LEAD_SECONDS
    mine, theirs = reserve(buckets, 5), reserve(buckets, 5)
    assert not buckets.give_back(KEY, mine, 5)
    assert buckets.give_back(KEY, theirs, 5)


def test_a_vendors_wish_holds_for_all(buckets: SharedBuckets) -> None:
    buckets.stop({KEY: 2.0, "another": 1.0})
    assert reserve(SharedBuckets(), 1).first == pytest.approx(2.0, abs=0.1)
    buckets.stop({KEY: 0.5})
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def drain_locally(local: LocalBuckets, clock: list[float], seconds: float) -> list[float]:
    sent = []
    for _ in range(round(seconds * 100)):
        [grant] = local.reserve([Ask(KEY, RATE, 50, AHEAD)], sharers=4)
        sent += [clock[0] + grant.first + n * grant.interval for n in range(grant.slots)]
        clock[0] += 0.01
    return sent


def test_without_a_cache_each_process_takes_its_part(clock: list[float]) -> None:
    sent = drain_locally(LocalBuckets(), clock, 4.0)
    assert len(sent) == pytest.approx((4.0 + AHEAD) * RATE.count / 4, abs=3)
    assert min(later - earlier for earlier, later in pairwise(sent)) >= 4 * RATE.interval - 1e-6


def test_without_a_cache_a_new_recipient_waits_only_as_long_as_the_past_is_unknown(clock: list[float]) -> None:
    local, slow = LocalBuckets(), Rate(1, 6.0)

    def first(recipient: str) -> Grant:
        return local.reserve([Ask(recipient_key(7, recipient), slow, 1, AHEAD)], sharers=2)[0]

    assert first("somebody").slots == 0, "another process may have written to them a moment ago"
    clock[0] += 24.0
    assert [first("somebody").slots, first("somebody").slots, first("somebody else").slots] == [1, 0, 1]
    for number in range(pacing.LOCAL_BUCKETS + 10):
        first(f"recipient {number}")
    clock[0] += 60.0
    assert first("somebody").slots == 1, "one that was forgotten is free, not unknown"


def test_a_cache_that_comes_back_learns_what_was_sent_without_it(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a process that knew of nothing then asks the cache."""
    mine, slow, now = Buckets(), Rate(1, 60.0), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1000)  # so that its past is long ago
    ask = [Ask(KEY, slow, 1, AHEAD)]
    with monkeypatch.context() as away:
        away.setattr(cache, "client", lambda: None)
        assert mine.reserve(ask, lambda: 1)[0].slots == 1
        assert mine.reserve(ask, lambda: 1)[0].slots == 0
    assert mine.reserve(ask, lambda: 1)[0].first == pytest.approx(60.0, abs=1.0)
    assert Buckets().reserve(ask, lambda: 1)[0].first == pytest.approx(60.0, abs=1.0)


def test_what_a_vendor_asked_for_is_told_though_nothing_is_claimed(buckets: SharedBuckets) -> None:
    mine = Buckets()
    mine.stop(KEY, 5.0)
    mine.stop(KEY, 1.0)
    mine.tell()
    assert reserve(buckets, 1).first == pytest.approx(5.0, abs=0.2)


def test_what_one_waits_for_is_told_for_those_that_wait(buckets: SharedBuckets) -> None:
    reserve(buckets, 26)
    found = pacing.waits({7: RATE, 8: RATE})
    assert found == {7: pytest.approx(0.26, abs=0.05)}
    assert pacing.waits({}) == {}
