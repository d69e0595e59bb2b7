"""kombu's Redis transport with three mends, for lost connections, for waits and for what is no task at all. Used by
``config.celery``.

A task that ends after the broker went away acknowledges on a channel whose connection is gone, and so does kombu itself
when it gives unacknowledged tasks back. In kombu 5.7 both raise ``AttributeError``, which nobody expects there: the worker
ends. A ``ConnectionError`` is what its callers are prepared for; the bell comes again, and rings for nothing.

redis-py tries a connection four times over seconds before it says that there is none. Whoever rings has other work to do
meanwhile, and says by the transport option ``retry`` (redis-py's own class) how often it is tried.

An element of a queue that is not what kombu writes ends the worker as well, and is gone. The worker's consumer takes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import structlog
from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError

log = structlog.get_logger(__name__)


class Channel(redis.Channel):
    """A channel that knows when its connection is gone."""

    connection: Transport
    _queue_cycle: Any

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was lost")
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        retry = (self.connection.client.transport_options or {}).get("retry")
        return {**found, "retry": retry} if retry else found

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            element = error.doc if isinstance(error, json.JSONDecodeError) else error.object.decode(errors="replace")
            # It was taken from the queue whose turn is now the last.
            self.connection.garbage(self._queue_cycle.items[-1], element)
            return True


def _say_garbage(queue: str, element: str) -> None:
    """Where no worker listens, in Flower say: what it was may name people, so only where it lay is told."""
    log.error("unreadable_element_dropped", queue=queue, characters=len(element))


class Transport(redis.Transport):
    """The transport of ``redis://``, ``rediss://`` and ``redis+socket://``."""

    Channel = Channel
    #: Told of (queue, element) for what kombu cannot read, and which is on the queue no more. A worker's consumer parks it.
    garbage: Callable[[str, str], None] = staticmethod(_say_garbage)

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.garbage(queue or "", json.dumps(message))
