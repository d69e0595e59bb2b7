"""The channels themselves: what a recipient looks like on each, and how long a message on it is worth sending.

Read by intake. A provider is one file; a channel is one row here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from email_validator import EmailNotValidError, validate_email
from yarl import URL

from channels.base import InvalidRecipient
from channels.phones import e164
from channels.urls import webhook_url

_TELEGRAM = re.compile(r"-?[0-9]{1,19}\Z|@[A-Za-z][A-Za-z0-9_]{3,31}\Z")
_OPAQUE_LIMIT = 2048
#: The push services of Chrome, Firefox, Safari and Edge. An endpoint comes from a browser, so anybody can make one up:
#: nothing but these may be asked.
_PUSH_SERVICES = re.compile(
    r"fcm\.googleapis\.com|updates\.push\.services\.mozilla\.com|[a-z0-9.-]+\.(push\.apple|notify\.windows)\.com"
)
#: A subscription's keys: how many bytes they have, and how that looks in base64url.
_PUSH_KEYS = {"p256dh": (65, re.compile(r"[A-Za-z0-9_-]{87}")), "auth": (16, re.compile(r"[A-Za-z0-9_-]{22}"))}
_BASE64URL = str.maketrans("+/", "-_")


def email(to: str) -> str:
    """``to`` with its domain in lower case and its parts checked by RFC 5321; nothing is looked up."""
    try:
        return validate_email(to, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise InvalidRecipient(f"is not an e-mail address: {error}") from error


def telegram(to: str) -> str:
    """A chat id (a whole number) or a public @username."""
    if not _TELEGRAM.match(to.strip()):
        raise InvalidRecipient("is not a Telegram chat; give the chat id (a whole number) or a public @username")
    return to.strip()


def opaque(to: str) -> str:
    """An identifier that only the vendor can read."""
    stripped = to.strip()
    if not stripped or len(stripped) > _OPAQUE_LIMIT:
        raise InvalidRecipient(f"must have 1 to {_OPAQUE_LIMIT} characters")
    return stripped


def subscription(to: str) -> str:
    """A browser's push subscription as JSON in one form, with nothing but its endpoint and its keys.

    https://www.w3.org/TR/push-api/#dom-pushsubscription-tojson
    """
    given = _json_object(to)
    endpoint, keys = given.get("endpoint"), given.get("keys")
    if not isinstance(endpoint, str) or not isinstance(keys, dict):
        raise InvalidRecipient("is not a push subscription; give the JSON of the browser's, with endpoint and keys")
    found = {"endpoint": _push_endpoint(endpoint), "keys": {name: _push_key(name, keys) for name in _PUSH_KEYS}}
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    if len(text) > _OPAQUE_LIMIT:
        raise InvalidRecipient(f"must have at most {_OPAQUE_LIMIT} characters")
    return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _push_endpoint(given: str) -> str:
    try:
        endpoint = URL(webhook_url(given))
    except InvalidRecipient as error:
        raise InvalidRecipient(f"has an endpoint that {error}") from error
    if not _PUSH_SERVICES.fullmatch(endpoint.raw_host or "") or not endpoint.is_default_port():
        raise InvalidRecipient("has an endpoint at none of the known push services (Google, Mozilla, Apple, Microsoft)")
    return str(endpoint)


def _push_key(name: str, keys: Mapping[str, Any]) -> str:
    """In base64url without padding, in whichever alphabet it came."""
    size, form = _PUSH_KEYS[name]
    given = keys.get(name)
    text = given.rstrip("=").translate(_BASE64URL) if isinstance(given, str) else ""
    if not form.fullmatch(text):
        raise InvalidRecipient(f"has a key {name} that is not {size} bytes in base64url")
    value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # the last character may hold bits too many
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Medium:
    """One channel: how its recipients are normalised and how long a message waits before it expires."""

    key: str
    normalise: Callable[[str], str]
    expires_after: timedelta


_CHAT = timedelta(hours=4)
MEDIA: dict[str, Medium] = {
    medium.key: medium
    for medium in (
        Medium("email", email, timedelta(hours=72)),
        Medium("sms", e164, _CHAT),
        Medium("whatsapp", e164, _CHAT),
        Medium("messenger", opaque, _CHAT),
        Medium("instagram", opaque, _CHAT),
        Medium("telegram", telegram, _CHAT),
        Medium("x", opaque, _CHAT),
        Medium("slack", opaque, _CHAT),
        Medium("discord", opaque, _CHAT),
        Medium("teams", opaque, _CHAT),
        Medium("line", opaque, _CHAT),
        Medium("webpush", subscription, _CHAT),
        Medium("push", opaque, _CHAT),
        Medium("webhook", webhook_url, timedelta(hours=28)),
    )
}
