"""The words that the service and its clients share: statuses, lanes, error classes, event names.

Owned by the public contract; read by every package. Standard library only, Python 3.9 or later, so no ``StrEnum``.
"""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A string with a closed set of values; prints and serialises as the plain word."""

    def __str__(self) -> str:
        return str(self.value)


class Status(_Word):
    """Where a message is in its life."""

    QUEUED = "queued"  # kept; waits for its turn, its time or its next attempt
    SENDING = "sending"  # a worker holds a lease on it
    SENT = "sent"  # the provider took it over
    DELIVERED = "delivered"  # the provider proved delivery
    READ = "read"  # the recipient opened it
    UNDELIVERED = "undelivered"  # the provider took it and later gave it up
    FAILED = "failed"  # refused, or its retries are spent
    EXPIRED = "expired"  # its time ran out before it could be sent
    CANCELED = "canceled"  # the service or an operator withdrew it
    SUPPRESSED = "suppressed"  # the recipient must not be written to
    IN_DOUBT = "in_doubt"  # the answer never came: it may or may not have been sent


#: Statuses that a message cannot leave by itself. ``sent`` and ``delivered`` join them once no receipt can come any more.
FINAL = frozenset({Status.READ, Status.UNDELIVERED, Status.FAILED, Status.EXPIRED, Status.CANCELED, Status.SUPPRESSED})


class Lane(_Word):
    """Urgency class with its own queue."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class ErrorClass(_Word):
    """Why an attempt, or a message, did not succeed: ``error.class`` on the wire."""

    NOT_SENT = "not_sent"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    NOT_ALLOWED_NOW = "not_allowed_now"
    RECIPIENT_REFUSED = "recipient_refused"
    CONTENT_REFUSED = "content_refused"
    MISCONFIGURED = "misconfigured"
    IN_DOUBT = "in_doubt"
    EXPIRED = "expired"
    POISON = "poison"


class WaitingFor(_Word):
    """What a queued message waits for."""

    SCHEDULE = "schedule"
    RETRY = "retry"
    RATE_LIMIT = "rate_limit"
    BREAKER = "breaker"
    PREDECESSOR = "predecessor"
    QUIET_HOURS = "quiet_hours"
    QUOTA = "quota"
    PAUSED = "paused"
    OPERATOR = "operator"
