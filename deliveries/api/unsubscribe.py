"""The page behind List-Unsubscribe: one POST, by the reader's mail program or by a button, and nothing more goes to them.

A GET changes nothing: scanners of mail follow every link (RFC 8058, section 1).
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.views import View

from deliveries import acts
from deliveries.models import Message
from deliveries.unsubscribing import message_of


class UnsubscribeView(View):
    """`/unsubscribe/{token}`: no key, a URL that was signed here."""

    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, token: str) -> HttpResponseBase:
        """A button."""
        return _page(request, "ask" if _message(token) else "unknown")

    def post(self, request: HttpRequest, token: str) -> HttpResponseBase:
        """Suppress the recipient on the message's channel, for the service that wrote. Once or often is the same."""
        message = _message(token)
        if message is None:
            return _page(request, "unknown")
        acts.suppress(
            message.channel,
            message.recipient,
            service_id=message.service_id,
            actor="recipient",
            reason=f"unsubscribed from message {message.pk}",
        )
        return _page(request, "done")


def _message(token: str) -> Message | None:
    message_id = message_of(token)
    return Message.objects.filter(pk=message_id).first() if message_id else None


def _page(request: HttpRequest, state: str) -> HttpResponse:
    status = 404 if state == "unknown" else 200
    page = TemplateResponse(request, "chaski/unsubscribe.html", {"state": state}, status=status)
    page["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    page["Referrer-Policy"] = "no-referrer"
    return page.render()
