"""When a message may leave, so that a vendor's rates are kept by all workers together. Used by the engine and by reading.

A bucket per account, and one per account and recipient, each the next moment that is free (GCRA without a burst), in the
shared cache and by its clock. Who wants to send asks for slots some moments ahead, and begins its calls at theirs
(docs/adr/0017-slots-ahead.md).

A cache that lost everything knows no bucket, which must not mean that all of them are free: it keeps the moment since when
it remembers, and an unknown bucket was in use until then.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from channels.rates import Rate
from deliveries import cache

log = structlog.get_logger(__name__)

#: Where no cache can be asked, it is asked again after so many seconds: who waits for one that hangs keeps others waiting.
AWAY_SECONDS = 10.0
#: From asking for slots to the first of them: what is claimed for them must be ready to leave then.
LEAD_SECONDS = 0.03
#: Buckets that a process without a cache keeps; beyond that, those that are free are forgotten.
LOCAL_BUCKETS = 10_000
_EPOCH = "chaski:pace:epoch"

#: All in whole microseconds. ``free`` slots, the first of them in ``first``; ``mark`` is the bucket as it stands now.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
_RESERVE = f"""{_NOW}
local epoch = tonumber(redis.call('GET', KEYS[1]))
if not epoch then
    epoch = now
    redis.call('SET', KEYS[1], string.format('%.0f', now))
end
local grants = {{}}
for i = 2, #KEYS do
    local interval, wanted, ahead = tonumber(ARGV[i * 3 - 5]), tonumber(ARGV[i * 3 - 4]), tonumber(ARGV[i * 3 - 3])
    local free = tonumber(redis.call('GET', KEYS[i])) or epoch + interval + ahead
    local earliest = now
    if wanted > 0 then earliest = now + {round(LEAD_SECONDS * 1e6)} end
    if free < earliest then free = earliest end
    local first, granted = free - now, 0
    if first <= ahead then
        granted = math.min(wanted, math.floor((ahead - first) / interval) + 1)
    end
    local mark = string.format('%.0f', free + granted * interval)
    if granted > 0 then
        redis.call('SET', KEYS[i], mark, 'PX', math.ceil((first + granted * interval) / 1000) + 1000)
    end
    grants[i - 1] = {{granted, string.format('%.0f', first), mark}}
end
return grants
"""
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', tonumber(ARGV[1]) - tonumber(ARGV[2])), 'KEEPTTL')
return 1
"""
_STOP = f"""{_NOW}
for i = 1, #KEYS do
    local free, wait = tonumber(redis.call('GET', KEYS[i])) or 0, tonumber(ARGV[i])
    if free < now + wait then
        redis.call('SET', KEYS[i], string.format('%.0f', now + wait), 'PX', math.ceil(wait / 1000) + 1000)
    end
end
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """``wanted`` slots of the bucket ``key``, none of them further ahead than so many seconds."""

    key: str
    rate: Rate
    wanted: int
    ahead: float


@dataclass(frozen=True, slots=True)
class Grant:
    """``slots`` of them, ``interval`` seconds apart; the first is free in ``first`` seconds, also where none was given.

    ``mark`` gives back those that were not used.
    """

    slots: int
    first: float
    interval: float
    mark: str = ""


class CacheAway(Exception):
    """The cache could not be asked; nothing was reserved."""


def account_key(account_id: int) -> str:
    """The bucket of an account."""
    return f"chaski:pace:{account_id}"


def recipient_key(account_id: int, recipient: str) -> str:
    """The bucket of one recipient of an account. The cache learns no addresses."""
    return f"chaski:pace:{account_id}:{hashlib.blake2b(recipient.encode(), digest_size=16).hexdigest()}"


class SharedBuckets:
    """The buckets in the cache. Thread-safe. Every method raises ``CacheAway`` within about a second."""

    def __init__(self) -> None:
        self._away_until = 0.0

    def reserve(self, asks: Sequence[Ask]) -> list[Grant]:
        """A grant for each of ``asks``, in one round trip."""
        keys = [_EPOCH, *(ask.key for ask in asks)]
        arguments = [
            argument for ask in asks for argument in (_micro(ask.rate.interval), ask.wanted, _micro(ask.ahead))
        ]
        found = self._eval(_RESERVE, keys, arguments)
        return [
            Grant(int(slots), int(first) / 1e6, ask.rate.interval, mark.decode())
            for ask, (slots, first, mark) in zip(asks, found, strict=True)
        ]

    def give_back(self, key: str, grant: Grant, unused: int) -> bool:
        """Give back the last ``unused`` slots of ``grant``; False where somebody has slots after them by now."""
        return bool(self._eval(_GIVE_BACK, [key], [grant.mark, unused * _micro(grant.interval)]))

    def stop(self, waits: Mapping[str, float]) -> None:
        """No slot of these buckets for so many seconds: the vendor asked for that, or they were used without us."""
        self._eval(_STOP, list(waits), [_micro(seconds) for seconds in waits.values()])

    def _eval(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        client = cache.client()
        if client is None or time.monotonic() < self._away_until:
            raise CacheAway
        try:
            return client.eval(script, len(keys), *keys, *arguments)
        except redis.RedisError as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            log.warning("pacing_without_the_cache", error=type(error).__name__)
            raise CacheAway from error


class LocalBuckets:
    """The buckets of one process, for while there is no cache: each of ``sharers`` processes takes its part. Thread-safe.

    What others did since the cache was last heard nobody knows: an unknown bucket was in use until then.
    """

    def __init__(self) -> None:
        self._free: dict[str, float] = {}
        self._heard_at = time.monotonic()
        #: So that not all processes begin at the same moment.
        self._phase = random.random()  # noqa: S311 - spreading load
        self._lock = threading.Lock()

    def reserve(self, asks: Sequence[Ask], sharers: int) -> list[Grant]:
        """A grant for each of ``asks``."""
        with self._lock:
            now = time.monotonic()
            if len(self._free) > LOCAL_BUCKETS:
                self._free = {key: free for key, free in self._free.items() if free > now}
            return [self._grant(ask, now, ask.rate.interval * max(1, sharers)) for ask in asks]

    def _grant(self, ask: Ask, now: float, interval: float) -> Grant:
        unknown = self._heard_at + interval * (1 + self._phase)
        free = max(now + LEAD_SECONDS, self._free.get(ask.key, unknown))
        first = free - now
        slots = min(ask.wanted, int((ask.ahead - first) / interval) + 1) if first <= ask.ahead else 0
        if slots:
            self._free[ask.key] = free + slots * interval
        return Grant(slots, first, interval)

    def waits(self) -> dict[str, float]:
        """The buckets that have no slot now, with the seconds until they have."""
        now = time.monotonic()
        with self._lock:
            return {key: free - now for key, free in self._free.items() if free > now}

    def heard(self) -> None:
        """The cache answered, and knows all that happened here."""
        with self._lock:
            self._heard_at = time.monotonic()
            self._free.clear()


class Buckets:
    """The shared ones where the cache answers, this process's own where it does not. Thread-safe."""

    def __init__(self) -> None:
        self._shared, self._local = SharedBuckets(), LocalBuckets()
        #: What the cache must be told, with the moments (monotonic) until when.
        self._stops: dict[str, float] = {}

    def reserve(self, asks: Sequence[Ask], sharers: Callable[[], int]) -> list[Grant]:
        """A grant for each of ``asks``. ``sharers``: how many processes send, where there is no cache to say what they do."""
        if not asks:
            return []
        try:
            self.tell()
            granted = self._shared.reserve(asks)
        except CacheAway:
            return self._local.reserve(asks, sharers())
        self._local.heard()
        return granted

    def give_back(self, key: str, grant: Grant, unused: int) -> bool:
        """See ``SharedBuckets.give_back``; False where the cache is away."""
        try:
            return bool(grant.mark) and self._shared.give_back(key, grant, unused)
        except CacheAway:
            return False

    def stop(self, key: str, seconds: float) -> None:
        """No slot for so long; told to the others by the next ``tell``. Never waits."""
        self._stops[key] = max(self._stops.get(key, 0.0), time.monotonic() + seconds)

    def tell(self) -> None:
        """Tell the cache what it must know: what vendors asked for, and what was sent while it was away. Raises ``CacheAway``."""
        stops = dict(self._stops)
        now = time.monotonic()
        waits = self._local.waits() | {key: until - now for key, until in stops.items() if until > now}
        if waits:
            self._shared.stop(waits)
        for key, until in stops.items():
            if self._stops.get(key) == until:
                del self._stops[key]


def waits(rates: Mapping[int, Rate]) -> dict[int, float]:
    """Account -> seconds until it has a slot; nothing of those that have one now, and nothing where nobody can tell."""
    try:
        asked = [Ask(account_key(account_id), rate, 0, 0.0) for account_id, rate in rates.items()]
        grants = _shared.reserve(asked) if asked else []
    except CacheAway:
        return {}
    return {account_id: grant.first for account_id, grant in zip(rates, grants, strict=True) if grant.first > 0}


def _micro(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


_shared = SharedBuckets()
