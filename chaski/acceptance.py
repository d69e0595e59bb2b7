"""What a service refuses at a glance, for the outbox of `chaski.testing`. The service itself checks more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from chaski.client import Client
from chaski.messages import parsed_time
from chaski.vocabulary import Lane
from chaski.wire import Answer

CHANNELS = frozenset(
    {"email", "sms", "whatsapp", "messenger", "instagram", "telegram", "x", "slack"}
    | {"discord", "teams", "line", "webpush", "push", "webhook"}
)
_FIELDS = frozenset(signature(Client.send).parameters) - {"self"} | {"id"}
_PHONE = re.compile(r"\+[0-9][0-9 ().-]{5,22}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")
_FORMS = {
    "sms": (
        _PHONE,
        "is not an international phone number; write it as +56912345678, with + and country code",
    ),
    "whatsapp": (
        _PHONE,
        "is not an international phone number; write it as +56912345678, with + and country code",
    ),
    "email": (_EMAIL, "is not an e-mail address"),
    "webhook": (re.compile(r"https?://\S+\Z"), "is not a URL"),
}
_OPAQUE = (re.compile(r"\S"), "must not be empty")


class Refused(Exception):
    """A call that the service would refuse, with its status, code and text."""

    def __init__(self, status: int, code: str, detail: str, errors: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = dict(errors or {})

    def answer(self) -> Answer:
        """As it would come over the wire."""
        problem = {
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "errors": self.errors,
            "request_id": "outbox",
        }
        return Answer(self.status, json.dumps(problem).encode())


def check(fields: Mapping[str, Any]) -> None:
    """Raises ``Refused`` (422) with every field that is obviously wrong."""
    found = {**_unknown(fields), **_recipient(fields), **_content(fields), **_words(fields), **_times(fields)}
    if found:
        raise Refused(422, "invalid", "the message was not accepted", {name: [why] for name, why in found.items()})


def _unknown(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: "is not a field of a message" for name in fields if name not in _FIELDS}


def _recipient(fields: Mapping[str, Any]) -> dict[str, str]:
    channel, to = fields.get("channel"), fields.get("to")
    if channel not in CHANNELS:
        return {"channel": f"is not a channel; there is {', '.join(sorted(CHANNELS))}"}
    form, why = _FORMS.get(str(channel), _OPAQUE)
    return {} if isinstance(to, str) and form.match(to.strip()) else {"to": why}


def _content(fields: Mapping[str, Any]) -> dict[str, str]:
    if any(fields.get(name) for name in ("text", "html", "template", "attachments")):
        return {}
    return {"text": "must not be empty"}


def _words(fields: Mapping[str, Any]) -> dict[str, str]:
    lanes = [lane.value for lane in Lane]
    return {} if fields.get("priority", "normal") in lanes else {"priority": f"must be one of {', '.join(lanes)}"}


def _times(fields: Mapping[str, Any]) -> dict[str, str]:
    given = [name for name in ("send_at", "expires_at") if fields.get(name) is not None]
    return {
        name: "is not ISO 8601 with a time zone, like 2030-01-31T09:00:00Z"
        for name in given
        if parsed_time(fields[name]) is None
    }
