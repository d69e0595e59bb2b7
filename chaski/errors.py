"""Everything that can go wrong in a call, as the caller catches it. Raised by the client; built from RFC 9457
problems.

    ChaskiError
    +-- ConfigurationError    no URL or key, or one that cannot be used
    +-- AuthenticationError   401  the key is unknown, expired or revoked
    +-- PermissionDenied      403  the key may not do this
    +-- InvalidMessage        400, 413, 422  `.errors` says which field and why
    +-- IdempotencyConflict   422  this key was used before for another content
    +-- NotFound              404  no such message, or it belongs to another service
    +-- Conflict              409  the message's status does not allow it
    +-- RateLimited           429  `.retry_after` seconds
    +-- Unavailable           the service cannot be reached, or answered 5xx
    +-- Timeout               it took longer than allowed
        +-- NoAnswer          is both: the request went out and no answer came in time

All can be pickled, so that they survive a task queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chaski.messages import BatchResult
    from chaski.wire import Answer

__all__ = [
    "AuthenticationError",
    "ChaskiError",
    "ConfigurationError",
    "Conflict",
    "IdempotencyConflict",
    "InvalidMessage",
    "NoAnswer",
    "NotFound",
    "PermissionDenied",
    "RateLimited",
    "Timeout",
    "Unavailable",
]


class ChaskiError(Exception):
    """A call that did not succeed; the text says what happened, what was looked at and what to do.

    ``code`` is a stable word for programs, ``request_id`` finds the call in the service's log (empty where it
    never got there), ``retryable`` tells whether the same call with the same ``key`` may succeed later,
    ``attempts`` how often it was tried. ``partial`` is what `send_many` had done before it failed.
    """

    code: str = "error"
    retryable: bool = False
    request_id: str = ""
    attempts: int = 1
    partial: BatchResult | None = None

    def __init__(self, detail: str = "", *, code: str = "", request_id: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.request_id = request_id


class ConfigurationError(ChaskiError):
    """The client cannot be made, or speaks to something that is not the service: mend the settings."""

    code = "configuration"


class AuthenticationError(ChaskiError):
    """The API key was not recognised: unknown, expired or revoked."""

    code = "not_authenticated"


class PermissionDenied(ChaskiError):
    """The API key is good, and may not do this."""

    code = "permission_denied"


class InvalidMessage(ChaskiError):
    """The service, or the client before it, refused the input. ``errors``: field -> what is wrong with it."""

    code = "invalid"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "",
        request_id: str = "",
        errors: Mapping[str, list[str]] | None = None,
    ) -> None:
        super().__init__(detail, code=code, request_id=request_id)
        self.errors = dict(errors or {})

    def __str__(self) -> str:
        listed = "; ".join(f"{field}: {' '.join(reasons)}" for field, reasons in self.errors.items())
        return ": ".join(part for part in (self.detail, listed) if part)


class IdempotencyConflict(ChaskiError):
    """The key was used before for a message with another content: nothing was sent."""

    code = "idempotency_conflict"


class NotFound(ChaskiError):
    """There is no such thing for this service."""

    code = "not_found"


class Conflict(ChaskiError):
    """The message's status does not allow it: ``code`` is ``not_cancelable`` or ``not_redeliverable``."""

    code = "conflict"


class RateLimited(ChaskiError):
    """Too many calls. ``retry_after`` is in seconds, None where the service did not say."""

    code = "rate_limited"
    retryable = True
    retry_after: float | None = None


class Unavailable(ChaskiError):
    """The service could not be reached or could not work. ``retry_after`` in seconds, where it said so."""

    code = "unavailable"
    retryable = True
    retry_after: float | None = None


class Timeout(ChaskiError):
    """The time that the caller allowed is over. From `wait`: the message is not there yet, and goes on
    without us.
    """

    code = "timeout"
    retryable = True


class NoAnswer(Unavailable, Timeout):
    """The request went out and no answer came in time: it may have been carried out. The same ``key`` makes
    repeating safe.
    """

    code = "no_answer"


_BY_STATUS: dict[int, type[ChaskiError]] = {
    400: InvalidMessage,
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidMessage,
    422: InvalidMessage,
    429: RateLimited,
}


def error_for(answer: Answer, called: str) -> ChaskiError:
    """The error that an answer of 300 or more stands for. ``called`` is method and URL, for the text."""
    if answer.status < 400:
        return _redirected(answer, called)
    problem = _problem(answer)
    error = _made(_class_for(answer.status, problem), problem, _detail(answer, problem, called))
    error.attempts = answer.attempts
    if isinstance(error, (RateLimited, Unavailable)):
        error.retry_after = answer.retry_after
    return error


def _class_for(status: int, problem: Mapping[str, Any]) -> type[ChaskiError]:
    if problem.get("code") == IdempotencyConflict.code:
        return IdempotencyConflict
    return _BY_STATUS.get(status, Unavailable if status >= 500 else ChaskiError)


def _made(cls: type[ChaskiError], problem: Mapping[str, Any], detail: str) -> ChaskiError:
    code, request_id = str(problem.get("code") or ""), str(problem.get("request_id") or "")
    if issubclass(cls, InvalidMessage):
        errors = field_errors(problem.get("errors"))
        return cls(detail, code=code, request_id=request_id, errors=errors)
    return cls(detail, code=code, request_id=request_id)


def field_errors(raw: object) -> dict[str, list[str]]:
    """``errors`` as they come over the wire, in one form: field -> list of texts."""
    if not isinstance(raw, Mapping):
        return {}
    return {
        str(field): [str(each) for each in reasons] if isinstance(reasons, list) else [str(reasons)]
        for field, reasons in raw.items()
    }


def _problem(answer: Answer) -> Mapping[str, Any]:
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _detail(answer: Answer, problem: Mapping[str, Any], called: str) -> str:
    said = problem.get("detail") or problem.get("title")
    if said:
        return str(said)
    return (
        f"{called} answered {answer.status} and gave no reason in the form the service uses. "
        "Something in between (a proxy) may have answered, or CHASKI_URL may point elsewhere"
    )


def _redirected(answer: Answer, called: str) -> ConfigurationError:
    where = answer.headers.get("location", "another address")
    return ConfigurationError(
        f"{called} was redirected ({answer.status}) to {where}. Not followed, because the API key "
        "would go along: set CHASKI_URL to the final address"
    )
