"""One id from the caller's request to the last log line: taken from X-Request-Id or made, sent back, bound to the logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from deliveries.api.problems import RETRY_SECONDS, Problem, respond

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


class RequestMiddleware:
    """The outermost middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _ID.match(given) else uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        response["X-Request-Id"] = request_id
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Pages outside the API, the admin's above all: the database being away is no 500."""
        if not isinstance(exception, (OperationalError, InterfaceError)):
            return None
        detail = f"The database does not answer. Nothing was changed; try again in {RETRY_SECONDS} seconds."
        response = respond(request, Problem(503, "unavailable", detail))
        response["Retry-After"] = str(RETRY_SECONDS)
        return response
