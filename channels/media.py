"""The channels themselves: what a recipient looks like on each, and how long a message on it is worth sending.

Read by intake. A provider is one file; a channel is one row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from channels.base import InvalidRecipient
from channels.urls import webhook_url

_PHONE = re.compile(r"\+[0-9 ().\-/\u00a0\u2010-\u2015]+\Z")
_TELEGRAM = re.compile(r"-?[0-9]{1,19}\Z|@[A-Za-z][A-Za-z0-9_]{3,31}\Z")
_OPAQUE_LIMIT = 2048


def phone(to: str) -> str:
    """``to`` in E.164. It must carry its country code: ``+56912345678``, ``+56 9 1234 5678``."""
    if not _PHONE.match(to.strip()):  # the library would read letters as digits and drop an extension
        raise InvalidRecipient(
            "is not an international phone number; write it as +56912345678, with + and country code"
        )
    try:
        number = phonenumbers.parse(to)
    except phonenumbers.NumberParseException as error:
        raise InvalidRecipient("is not a phone number; write it as +56912345678, with + and country code") from error
    if not phonenumbers.is_possible_number(number):
        raise InvalidRecipient("has too few or too many digits for its country; write it as +56912345678")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


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
        Medium("sms", phone, _CHAT),
        Medium("whatsapp", phone, _CHAT),
        Medium("messenger", opaque, _CHAT),
        Medium("instagram", opaque, _CHAT),
        Medium("telegram", telegram, _CHAT),
        Medium("x", opaque, _CHAT),
        Medium("slack", opaque, _CHAT),
        Medium("discord", opaque, _CHAT),
        Medium("teams", opaque, _CHAT),
        Medium("line", opaque, _CHAT),
        Medium("webpush", opaque, _CHAT),
        Medium("push", opaque, _CHAT),
        Medium("webhook", webhook_url, timedelta(hours=28)),
    )
}
