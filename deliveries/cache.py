"""The Redis or Valkey behind ``CHASKI_CACHE_URL``: what all processes share and may lose. Used by the doorbell, the
witnesses and pacing.
"""

from __future__ import annotations

from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

#: A hung server must cost who asks half a second, not the client's default of ten.
SHORT = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
#: Once more at once where the connection is one of the server before; the client's own three would wait for seconds.
ONCE_MORE = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))


def redis_url(url: str) -> str:
    """A broker URL in the form that redis-py takes: ``redis+socket:///path?virtual_host=0`` -> ``unix:///path?db=0``."""
    if url.startswith("redis+socket://"):
        return url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    return url


@cache
def client() -> redis.Redis | None:
    """redis-py's client of the cache; None where the broker is no Redis and no cache is given. Thread-safe."""
    if not settings.CHASKI_CACHE_URL:
        return None
    return redis.Redis.from_url(redis_url(settings.CHASKI_CACHE_URL), retry=ONCE_MORE, **SHORT)
