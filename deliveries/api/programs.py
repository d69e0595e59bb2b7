"""The short way to what programs call: past the middlewares for people in browsers. A middleware.

A program shows a key or a signature with each request; a session, a form's token, a page's policy and a slash at the end of a
URL mean nothing to it, and cost a third of what one receipt costs the web process. Stands behind what holds for everybody:
the request's id and the transport's security.
"""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import get_resolver
from rest_framework.response import Response

from deliveries.api.problems import of_exception

#: URLs that programs call. The API's documentation is a page, and so is every other URL.
PATHS = ("/api/v1/", "/receipts/", "/files/", "/unsubscribe/", "/health/", "/metrics")
#: Django's own handler makes answers of these.
_ANSWERED = (Http404, PermissionDenied, SuspiciousOperation)


class Programs:
    """Calls the view itself for the URLs of programs."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(PATHS):
            return self.get_response(request)
        request.get_host()  # raises DisallowedHost
        response = _answer(request)
        if not response.streaming and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))  # type: ignore[attr-defined]
        return response


def _answer(request: HttpRequest) -> HttpResponseBase:
    match = get_resolver().resolve(request.path_info)
    request.resolver_match = match
    try:
        response: HttpResponseBase = match.func(request, *match.args, **match.kwargs)
        return response.render() if isinstance(response, Response) else response
    except _ANSWERED:
        raise
    except Exception as error:  # noqa: BLE001 - what a view raised is an answer too
        return of_exception(request, error)
