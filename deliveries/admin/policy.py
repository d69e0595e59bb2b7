"""What every answer of the admin carries, and what people see when the database takes too long. A middleware.

docs/explanation/admin-security.md says why each source is allowed.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.urls import reverse

#: No inline script and no script from elsewhere. ``unsafe-eval``: django-unfold's Alpine compiles the expressions of its
#: own attributes. ``unsafe-inline`` is for styles alone: the theme's colours, and the style of an HTML body.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
RETRY_SECONDS = 2


class AdminPages:
    """For paths below the admin's root only."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if _is_ours(request):
            response["Content-Security-Policy"] = POLICY
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """A page instead of JSON when the database is away or a statement ran into its time limit."""
        if not _is_ours(request) or not isinstance(exception, (OperationalError, InterfaceError)):
            return None
        slow = "statement timeout" in str(exception)
        response = HttpResponse(render_to_string("admin/chaski/away.html", {"slow": slow}), status=503)
        response["Retry-After"] = str(RETRY_SECONDS)
        return response


def _is_ours(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:index"))
