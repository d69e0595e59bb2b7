"""How vendors' HTTP answers are read: JSON that may be rubbish, waits, and what a bare status means.

Called by providers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from channels.base import (
    ContentRefused,
    InDoubt,
    Misconfigured,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpResponse

#: A vendor that asks for more is asked again after a day.
WAIT_LIMIT_SECONDS = 86_400.0


def is_success(response: HttpResponse) -> bool:
    """Whether the status is 2xx."""
    return 200 <= response.status < 300


def json_object(response: HttpResponse) -> dict[str, Any]:
    """The body of a success. Raises ``InDoubt`` where it is no JSON object: something else answered."""
    found = _object(response.body)
    if found is None:
        raise unreadable(response)
    return found


def json_error(response: HttpResponse) -> dict[str, Any]:
    """The body of a refusal, empty where it is not a JSON object."""
    return _object(response.body) or {}


def unreadable(response: HttpResponse) -> InDoubt:
    """A success that does not say what the vendor documents."""
    return InDoubt("unreadable_answer", f"HTTP {response.status}, but the body is not what the vendor documents")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by ``Retry-After`` (RFC 9110: seconds or a date), None where it says nothing usable."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return wait_seconds(int(value[:12]))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return wait_seconds((at - (now or datetime.now(UTC))).total_seconds())


def wait_seconds(value: object) -> float | None:
    """A vendor's number of seconds, between 0 and a day; None for anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(min(max(value, 0), WAIT_LIMIT_SECONDS))  # bounded first: an int may be too large for a float


def by_status(response: HttpResponse, detail: str = "", code: str = "") -> SendError:
    """What a refusal means where the vendor's body has no code that we know; ``code`` is shown, and counted as unmapped."""
    error = _of_status(response, detail, code or f"http_{response.status}")
    error.unmapped = bool(code) and code != f"http_{response.status}"
    return error


def _of_status(response: HttpResponse, detail: str, code: str) -> SendError:
    status, wait = response.status, retry_after(response.headers)
    if status == 429:
        return Throttled(code, detail, retry_after=wait)
    if status >= 500 or status == 408:
        return Transient(code, detail, retry_after=wait)
    if status in (401, 402, 403, 407):
        return Misconfigured(code, detail or "the vendor refuses the account's credentials")
    if status in (404, 405):
        return Misconfigured(code, detail or "nothing is there; look at the account's options, base_url among them")
    if status < 400:
        return Misconfigured(code, detail or "the vendor answered with a redirect, which is not followed")
    return ContentRefused(code, detail)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
