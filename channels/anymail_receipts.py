"""What e-mail service providers report of mails, verified and read by anymail's views. Used by ``channels.anymail``.

The views are called by hand: no URL leads to them and they send no signal. Their library trusts what its ESP has signed; what
breaks it is forged, or unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from typing import Any

from anymail.signals import AnymailTrackingEvent
from django.core.handlers.wsgi import WSGIRequest
from standardwebhooks import Webhook

from channels.anymail_esps import ESPS, SVIX, Esp
from channels.base import DETAIL_LIMIT, Forged, InboundRequest, Receipt, ReceiptKind, Unreadable
from channels.reports import our_id

#: The name of our message's id among an ESP's metadata. Not message_id, which anymail uses itself.
REFERENCE = "chaski_id"
_ID_LIMIT = 200
#: An anymail view warns if it asks for no login. Where nothing is verified by it, it is given one that nobody has.
_NOBODY = "nobody:of this name"
#: "opened" is no proof of reading: mailboxes load pictures by themselves.
_KINDS = {
    "sent": ReceiptKind.SENT,
    "delivered": ReceiptKind.DELIVERED,
    "rejected": ReceiptKind.UNDELIVERED,
    "failed": ReceiptKind.UNDELIVERED,
    "bounced": ReceiptKind.UNDELIVERED,
}


def verify(settings: Mapping[str, str], request: InboundRequest) -> None:
    """Raises ``Forged`` unless the account's ESP sent it: by its signature, else by the login; by both where both are set."""
    esp = ESPS[settings["esp"]]
    needed = esp.signing_option if _signs(esp, settings) else "webhook_secret"
    if not esp.view:
        raise Forged(f"anymail reads no reports of {settings['esp']}")
    if not settings.get(needed):
        raise Forged(f"the account has no {needed}, so no receipt can be believed")
    try:
        if esp.signed_by == SVIX and _signs(esp, settings):
            _verify_svix(settings[needed], request)
        if esp.signed_by != SVIX or settings.get("webhook_secret"):
            _view(settings, request).run_validators(_django(request))
    except Exception as error:
        raise Forged(f"{settings['esp']} did not send it: {type(error).__name__}") from error


def parse(settings: Mapping[str, str], request: InboundRequest) -> list[Receipt]:
    """One receipt for each event that names a mail. Raises ``Unreadable``."""
    if not ESPS[settings["esp"]].view:
        raise Unreadable(f"anymail reads no reports of {settings['esp']}")
    try:
        events = _view(settings, request).parse_events(_django(request))
        receipts = [_receipt(event) for event in events if isinstance(event, AnymailTrackingEvent)]
    except Exception as error:
        raise Unreadable(f"it is not what {settings['esp']} documents: {type(error).__name__}") from error
    named = [receipt for receipt in receipts if receipt.message_id or receipt.provider_message_id]
    if receipts and not named:
        raise Unreadable(f"it names no mail; has {settings['esp']} changed its reports?")
    return named


def _signs(esp: Esp, settings: Mapping[str, str]) -> bool:
    return bool(esp.signed_by and (esp.always_signs or settings.get(esp.signing_option)))


def _view(settings: Mapping[str, str], request: InboundRequest) -> Any:
    """Anymail's view for the account's ESP, with what the account believes."""
    esp, login = ESPS[settings["esp"]], settings.get("webhook_secret", "")
    by_anymail = _signs(esp, settings) and esp.signed_by != SVIX
    believed = {esp.signed_by: settings.get(esp.signing_option, "")} if by_anymail else {"webhook_secret": _NOBODY}
    if login:
        believed["webhook_secret"] = login
    if esp.signs_address:
        believed["webhook_url"] = request.url.replace("://", f"://{login}@", 1) if login else request.url
    view = getattr(import_module(f"anymail.webhooks.{settings['esp']}"), esp.view)
    return view(**believed)


def _verify_svix(key: str, request: InboundRequest) -> None:
    """Svix signs as Standard Webhooks does, under header names of its own. https://docs.svix.com/receiving/verifying-payloads/how"""
    headers = {name.replace("svix-", "webhook-", 1): value for name, value in request.headers.items()}
    Webhook(key).verify(request.body, headers)


def _django(request: InboundRequest) -> WSGIRequest:
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    return WSGIRequest(
        {
            **headers,
            "REQUEST_METHOD": request.method,
            "PATH_INFO": "/",
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.input": BytesIO(request.body),
        }
    )


def _receipt(event: AnymailTrackingEvent) -> Receipt:
    kind = _KINDS.get(event.event_type, ReceiptKind.INFO)
    return Receipt(
        event_id=_event_id(event),
        kind=kind,
        provider_message_id=str(event.message_id or "")[:_ID_LIMIT],
        message_id=_our_id(event),
        at=_moment(event.timestamp),
        code=str(event.reject_reason or "")[:64] if kind is ReceiptKind.UNDELIVERED else "",
        detail=_detail(event)[:DETAIL_LIMIT],
    )


def _event_id(event: AnymailTrackingEvent) -> str:
    """The ESP's own; where it has none, of all that tells one event from another."""
    if event.event_id:
        return f"{event.event_type}:{event.event_id}"[:_ID_LIMIT]
    parts = (event.message_id, event.recipient, event.timestamp, event.reject_reason, event.click_url)
    return f"{event.event_type}:{sha256(repr(parts).encode(errors='replace')).hexdigest()}"


def _our_id(event: AnymailTrackingEvent) -> str:
    metadata = event.metadata if isinstance(event.metadata, Mapping) else {}
    told = (metadata.get(REFERENCE), *(event.tags or ()))
    return next(filter(None, map(our_id, told)), "")


def _moment(found: datetime | None) -> datetime | None:
    return found.astimezone(UTC) if found and found.tzinfo else None


def _detail(event: AnymailTrackingEvent) -> str:
    """What happened and why, without the address, which mail servers repeat."""
    said = (event.event_type, event.reject_reason, event.description, event.mta_response)
    text = ": ".join(str(part) for part in said if part)
    return text.replace(str(event.recipient), "[recipient]") if event.recipient else text
