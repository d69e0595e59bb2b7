"""kombu's Redis transport with one mend: what outlives a lost connection fails as a lost connection. Used by ``config.celery``.

A task that ends after the broker went away acknowledges on a channel whose connection is gone, and so does kombu itself
when it gives unacknowledged tasks back. In kombu 5.7 both raise ``AttributeError``, which nobody expects there: the worker
ends. A ``ConnectionError`` is what its callers are prepared for; the bell comes again, and rings for nothing.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Channel(redis.Channel):
    """A channel that knows when its connection is gone."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was lost")
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        return found


class Transport(redis.Transport):
    """The transport of ``redis://``, ``rediss://`` and ``redis+socket://``."""

    Channel = Channel
