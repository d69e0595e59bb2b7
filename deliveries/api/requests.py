"""One id from the caller's request to the last log line: taken from X-Request-Id or made, sent back, bound to the logs.

It also sees to it that whatever goes wrong outside of DRF's views, an unknown URL above all, is a problem for programs too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from deliveries.api.problems import of_exception, of_status, respond
from deliveries.sql import is_away

#: URLs that programs call. Errors of other pages, the admin's above all, are pages for people.
_FOR_PROGRAMS = ("/api/", "/receipts/", "/files/", "/health/", "/metrics")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


class RequestMiddleware:
    """The outermost middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = begin(request.headers.get("X-Request-Id", ""))
        request.request_id = request_id  # type: ignore[attr-defined]
        response = _for_programs(request, self.get_response(request))
        response["X-Request-Id"] = request_id
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """What the view of a page raised: the database being away is no 500, on no page."""
        if is_away(exception) or request.path.startswith(_FOR_PROGRAMS):
            return of_exception(request, exception)
        return None


def begin(given: str) -> str:
    """The id of a request that shows ``given`` as its own, from now on in each log line of this thread."""
    request_id = given if _ID.match(given) else uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


def _for_programs(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    if response.status_code < 400 or not request.path.startswith(_FOR_PROGRAMS):
        return response
    if "json" in response.get("Content-Type", ""):
        return response
    told = respond(request, of_status(response.status_code))
    if "Allow" in response:
        told["Allow"] = response["Allow"]
    return told
