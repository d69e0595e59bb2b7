"""What people write to a WhatsApp number, as the Cloud API reports it. Used by ``whatsapp_cloud``.

https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/components#messages-object
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from channels import graph
from channels.inbound import Reply
from channels.reports import moment

_PHONE = re.compile(r"[0-9]{5,20}")
_FILES = ("image", "video", "audio", "document", "sticker")


def replies(entries: list[dict[str, Any]]) -> Iterator[Reply]:
    """Those of a report; what is garbled spoils no other."""
    for entry in entries:
        for change in graph.objects(entry.get("changes")):
            value = change.get("value")
            if isinstance(value, dict):
                names = _names(value)
                yield from (reply for each in graph.objects(value.get("messages")) if (reply := _reply(each, names)))


def _names(value: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for contact in graph.objects(value.get("contacts")):
        profile = contact.get("profile")
        if isinstance(profile, dict):
            found[str(contact.get("wa_id"))] = str(profile.get("name", ""))
    return found


def _reply(message: Mapping[str, Any], names: Mapping[str, str]) -> Reply | None:
    sender, wamid = message.get("from"), message.get("id")
    if not isinstance(sender, str) or not _PHONE.fullmatch(sender) or not isinstance(wamid, str) or not wamid:
        return None
    context = message.get("context")
    files = [part for kind in _FILES if isinstance(part := message.get(kind), dict)]
    return Reply(
        event_id=f"reply:{wamid}"[:400],
        sender=f"+{sender}",
        text=_text(message) or next((str(file["caption"]) for file in files if file.get("caption")), ""),
        name=names.get(sender, ""),
        files=tuple(str(file["id"]) for file in files if file.get("id")),
        answers=str(context.get("id", "")) if isinstance(context, dict) else "",
        at=moment(message.get("timestamp")),
    )


def _text(message: Mapping[str, Any]) -> str:
    """A text, or what a button or a list says."""
    for path in (("text", "body"), ("button", "text"), ("reaction", "emoji")):
        if found := _at(message, *path):
            return found
    interactive = message.get("interactive")
    if not isinstance(interactive, dict):
        return ""
    return _at(interactive, "button_reply", "title") or _at(interactive, "list_reply", "title")


def _at(found: Mapping[str, Any], name: str, member: str) -> str:
    inner = found.get(name)
    value = inner.get(member) if isinstance(inner, dict) else None
    return value if isinstance(value, str) else ""
