"""HTTP to the service: one pool of connections per client, and the repeats. Called by the client only.

The one module that needs urllib3; imported when a client is made, not before. A request is repeated on a
network error and on 429, 502, 503 and 504, as it stands: whatever makes it idempotent (key, ids) is in it
already.
"""

from __future__ import annotations

import os
import platform
import random
import time
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError, SSLError
from urllib3.exceptions import ProtocolError as BrokenConnection

from chaski.errors import NoAnswer, Unavailable
from chaski.wire import API_ROOT, Answer, Request

_REPEATED = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
#: Idle connections kept per client; more threads than this may call, their connections are closed after use.
_KEPT_CONNECTIONS = 32


class Transport:
    """Sends requests to one service. Safe to share between threads; after a fork the child opens its own
    connections.
    """

    def __init__(self, url: str, api_key: str, *, version: str, timeout: tuple[float, float], retries: int) -> None:
        """``timeout`` is (connect, read) in seconds for each attempt; ``retries`` counts the attempts after
        the first.
        """
        self._root = url + API_ROOT
        self._connect, self._read = timeout
        self._retries = retries
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Accept": "application/json, application/problem+json",
            "User-Agent": f"chaski-client/{version} Python/{platform.python_version()}",
        }
        self._pool = self._opened()

    def exchange(self, request: Request, deadline: float) -> Answer:
        """The service's answer, whatever its status, within ``deadline`` seconds including pauses.

        Raises ``Unavailable`` (``NoAnswer`` where the request had gone out) when the last attempt brought
        none. A pause that does not fit into the deadline is not begun.
        """
        ends_at = time.monotonic() + deadline
        for attempt in range(1, self._retries + 2):
            outcome = self._attempt(request, ends_at - time.monotonic())
            pause = pause_after(attempt, outcome)
            if pause is None or attempt > self._retries or time.monotonic() + pause >= ends_at:
                break
            time.sleep(pause)
        return _settled(outcome, attempt)

    def close(self) -> None:
        """Close the idle connections; the next call opens new ones."""
        self._manager().clear()

    def _attempt(self, request: Request, remaining: float) -> Answer | Unavailable:
        try:
            response = self._sent(request, max(remaining, 0.001))
        except HTTPError as error:
            return _failure(error, f"{request.method} {self._root}{request.path}")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, response.data, headers, retry_after(headers.get("retry-after")))

    def _sent(self, request: Request, remaining: float) -> urllib3.BaseHTTPResponse:
        query = f"?{urlencode(request.query)}" if request.query else ""
        return self._manager().request(
            request.method,
            f"{self._root}{request.path}{query}",
            body=request.body,
            headers=self._headers_of(request),
            timeout=urllib3.Timeout(connect=min(self._connect, remaining), read=min(self._read, remaining)),
            retries=False,
            redirect=False,
        )

    def _headers_of(self, request: Request) -> dict[str, str]:
        headers = dict(self._headers)
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if request.key:
            headers["Idempotency-Key"] = request.key
        return headers

    def _manager(self) -> urllib3.PoolManager:
        """This process's pool. Without a lock, since a fork may leave one held: at worst two threads open one
        each.
        """
        owner, manager = self._pool
        if owner != os.getpid():
            self._pool = _, manager = self._opened()
        return manager

    @staticmethod
    def _opened() -> tuple[int, urllib3.PoolManager]:
        return os.getpid(), urllib3.PoolManager(maxsize=_KEPT_CONNECTIONS)


def pause_after(attempt: int, outcome: Answer | Unavailable) -> float | None:
    """Seconds before the next attempt: what the service asked for, else exponential; jittered. None: stop."""
    if isinstance(outcome, Answer) and outcome.status not in _REPEATED:
        return None
    if isinstance(outcome, Unavailable) and not outcome.retryable:
        return None
    if outcome.retry_after is not None:
        return outcome.retry_after + _between(0, _FIRST_PAUSE_SECONDS)
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    return _between(longest / 2, longest)


def _between(low: float, high: float) -> float:
    return random.uniform(low, high)  # noqa: S311 - spreads load, keeps no secret


def retry_after(value: str | None) -> float | None:
    """A Retry-After header in seconds from now; it holds seconds or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return max(0.0, (aware - datetime.now(timezone.utc)).total_seconds())


def _failure(error: HTTPError, called: str) -> Unavailable:
    if isinstance(error, ReadTimeoutError):
        return NoAnswer(
            f"{called} gave no answer in time; it may have been carried out. The same key makes it safe to repeat"
        )
    if isinstance(error, SSLError):
        failure = Unavailable(
            f"{called} could not be trusted: {error}. Look at CHASKI_URL and its certificate", code="tls"
        )
        failure.retryable = False
        return failure
    if isinstance(error, BrokenConnection):
        return Unavailable(f"{called} was cut off before the answer was complete: {error}", code="connection_lost")
    return Unavailable(
        f"{called} could not be reached: {error}. Is CHASKI_URL right, and is the service up?",
        code="unreachable",
    )


def _settled(outcome: Answer | Unavailable, attempts: int) -> Answer:
    if isinstance(outcome, Answer):
        return replace(outcome, attempts=attempts)
    outcome.attempts = attempts
    raise outcome
