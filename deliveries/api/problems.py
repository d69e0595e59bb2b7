"""Problems as people and programs read them: RFC 9457 with a code, the fields, the request id and what to do.

Raised by the views, rendered by DRF through ``handle`` and by the middleware for what no view of DRF answered.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from deliveries.sql import is_away

log = structlog.get_logger(__name__)
Errors = Mapping[str, list[str]]

_TITLES = {
    400: "The request cannot be read",
    401: "The API key is missing or not valid",
    403: "The API key may not do this",
    404: "There is nothing here",
    405: "This URL takes another method",
    406: "This URL answers JSON only",
    409: "The message is not in a state for this",
    411: "The request does not say how long it is",
    413: "The request is too large",
    415: "The body has another media type than this URL takes",
    422: "The request cannot be accepted",
    429: "Too many requests",
    500: "Something broke here",
    503: "The database is away",
}
RETRY_SECONDS = 2
#: A commit whose answer was lost may have happened, hence no "nothing was stored".
_AWAY = (
    f"The database does not answer, or takes no writes now. Repeat the request with the same keys in {RETRY_SECONDS}"
    " seconds: what was stored already is not stored twice."
)
_NOTHING_HERE = "There is nothing at this URL, or nothing that belongs to this service. /api/docs lists the calls."
_BROKEN = "Nothing was promised. The request id leads the operators to the cause."


class Problem(Exception):
    """An answer other than success: raised anywhere in a view, rendered by ``handle``."""

    def __init__(self, status: int, code: str, detail: str, errors: Errors | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or {}


def body(status: int, code: str, detail: str, request_id: str, errors: Errors | None = None) -> dict[str, Any]:
    """The members of a problem."""
    return {
        "type": f"urn:chaski:problem:{code}",
        "title": _TITLES.get(status, "The request failed"),
        "status": status,
        "code": code,
        "detail": detail,
        "errors": dict(errors or {}),
        "request_id": request_id,
    }


def handle(exception: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's exception handler: every exception of a view becomes a problem."""
    set_rollback()
    request_id = getattr(context["request"], "request_id", "")
    problem, headers = _problem(exception)
    headers |= waiting(problem.status)
    if problem.status >= 500:
        log.warning("request_failed", code=problem.code, error=type(exception).__name__)
    content = body(problem.status, problem.code, problem.detail, request_id, problem.errors)
    return Response(content, status=problem.status, headers=headers, content_type="application/problem+json")


def _problem(exception: Exception) -> tuple[Problem, dict[str, str]]:
    if isinstance(exception, Problem):
        return exception, {}
    if is_away(exception):
        return unavailable(), {}
    if isinstance(exception, RequestDataTooBig):
        return Problem(413, "too_large", "The body is larger than any request may be."), {}
    if isinstance(exception, (Http404, exceptions.NotFound)):
        return Problem(404, "not_found", _NOTHING_HERE), {}
    if isinstance(exception, exceptions.APIException):
        return _of_framework(exception)
    report(exception)
    return Problem(500, "internal", _BROKEN), {}


def unavailable() -> Problem:
    """The database is away."""
    return Problem(503, "unavailable", _AWAY)


def waiting(status: int) -> dict[str, str]:
    """The header that every 503 and 429 carries, whoever made it: when to come again."""
    return {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}


def report(exception: BaseException) -> None:
    """Log a mistake of ours: what it was and where, never its text, as a database's holds whole rows."""
    cause = exception.__cause__
    log.error(
        "unexpected_error",
        error=type(exception).__name__,
        sqlstate=getattr(cause, "sqlstate", None),
        constraint=getattr(getattr(cause, "diag", None), "constraint_name", None),
        where="".join(traceback.format_tb(exception.__traceback__)),
    )


def of_status(status: int) -> Problem:
    """The problem in the place of a page that Django itself made."""
    codes = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 503: "unavailable"}
    details = {
        400: "The request cannot be read: its host, path or headers are not what this service takes.",
        404: _NOTHING_HERE,
        405: "This URL takes another method; the header Allow names it.",
        503: _AWAY,
    }
    if status >= 500 and status not in codes:
        return Problem(500, "internal", _BROKEN)
    return Problem(status, codes.get(status, "refused"), details.get(status, "The request was refused."))


def _of_framework(exception: exceptions.APIException) -> tuple[Problem, dict[str, str]]:
    headers = {}
    if header := getattr(exception, "auth_header", ""):
        headers["WWW-Authenticate"] = str(header)
    if wait := getattr(exception, "wait", None):
        headers["Retry-After"] = str(int(wait) + 1)
    codes = exception.get_codes()
    code = codes if isinstance(codes, str) else "invalid"
    code = {
        "parse_error": "malformed",
        "authentication_failed": "unauthenticated",
        "not_authenticated": "unauthenticated",
    }.get(code, code)
    return Problem(exception.status_code, code, str(exception.detail)), headers


def respond(request: HttpRequest, problem: Problem) -> JsonResponse:
    """A problem outside of DRF's views."""
    content = body(problem.status, problem.code, problem.detail, getattr(request, "request_id", ""), problem.errors)
    return JsonResponse(
        content, status=problem.status, headers=waiting(problem.status), content_type="application/problem+json"
    )


def of_exception(request: HttpRequest, exception: Exception) -> JsonResponse:
    """What a view outside of DRF's raised, and nobody expected."""
    if is_away(exception):
        return respond(request, unavailable())
    report(exception)
    return respond(request, of_status(500))
