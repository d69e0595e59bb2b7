"""What a message becomes on the wire of Meta's Cloud API. Used by ``channels.whatsapp_cloud``.

https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages
"""

from __future__ import annotations

from typing import Any

from channels.attachments import Attachment, Kind
from channels.base import Outbound

MEDIA = ("image_url", "video_url", "audio_url", "document_url", "sticker_url")
CAPTIONED = ("image_url", "video_url", "document_url")


def kinds_of(outbound: Outbound) -> list[str]:
    """The options by which it is more than a text."""
    return [name for name in (*MEDIA, "template", "interactive") if outbound.options.get(name)]


def request_of(outbound: Outbound, media_id: str = "") -> dict[str, Any]:
    """The message as JSON; its file by ``media_id`` where there is one, else by its URL."""
    common: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": outbound.to.removeprefix("+"),
        "biz_opaque_callback_data": outbound.message_id,
    }
    if outbound.options.get("reply_to"):
        common["context"] = {"message_id": outbound.options["reply_to"]}
    for attachment in outbound.attachments:
        return common | _attached(attachment, outbound.text, media_id)
    kinds = kinds_of(outbound)
    if not kinds:
        text = {"body": outbound.text, "preview_url": bool(outbound.options.get("preview_url"))}
        return common | {"type": "text", "text": text}
    kind = kinds[0].removesuffix("_url")
    if kinds[0] not in MEDIA:
        return common | {"type": kind, kind: outbound.options[kind]}
    media: dict[str, Any] = {"link": outbound.options[kinds[0]]}
    if outbound.text and kinds[0] in CAPTIONED:
        media["caption"] = outbound.text
    if outbound.options.get("filename") and kind == "document":
        media["filename"] = outbound.options["filename"]
    return common | {"type": kind, kind: media}


def _attached(attachment: Attachment, text: str, media_id: str) -> dict[str, Any]:
    """A file with its caption; audio has none, so ``refuse`` lets no text come with it."""
    kind = attachment.kind
    where = {"id": media_id} if media_id else {"link": attachment.url}
    media = where | ({"caption": text} if text else {})
    if kind is Kind.DOCUMENT:
        media["filename"] = attachment.name
    return {"type": str(kind), str(kind): media}
