"""What every answer of the admin carries, and what people see when the database takes too long. A middleware.

The pages hold no inline script and no event attribute, so scripts come from our own files alone: text that slipped through
the escaping would still not run. Two sources cannot be forbidden while the theme is django-unfold 0.91:

- ``unsafe-eval`` for scripts. Its templates put their behaviour into attributes (``x-data="{open: false}"``,
  ``x-on:click="..."``), and the Alpine.js that it brings makes functions of them with the constructor of
  ``async function``. Without it dialogs stay open over the page and no button can be pressed. Alpine's build for strict
  policies takes names only, no expressions, so it cannot be put in its place. What people typed never stands in such an
  attribute, and a test looks at every page.
- ``unsafe-inline`` for styles: the theme writes its colours into a style element and sizes into style attributes, htmx adds
  one of its own, and the HTML of a message, which inherits this policy inside its frame, is nothing without its styles.

Everything else is closed: an image, style sheet, frame or form of a message's HTML reaches no other host, so looking at a
message tells nobody that it was looked at.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.urls import reverse

from deliveries.sql import is_away

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
        if not _is_ours(request) or not is_away(exception):
            return None
        slow = "statement timeout" in str(exception)
        response = HttpResponse(render_to_string("admin/chaski/away.html", {"slow": slow}), status=503)
        response["Retry-After"] = str(RETRY_SECONDS)
        return response


def _is_ours(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:index"))
