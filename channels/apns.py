"""Push messages to apps on Apple's devices through the Apple Push Notification service (APNs), over HTTP/2.

Used by the delivery engine. A recipient is the device token of one installed app.
https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from channels import apple_login, rules
from channels.answers import by_status, is_success, json_error, retry_after, unreadable
from channels.apple_login import Login
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    Misconfigured,
    NotSent,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.codes import Code, Codes
from channels.http import HttpClient, HttpResponse
from channels.http2 import Http2Client

PAYLOAD_LIMIT = 4096
#: https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification
COLLAPSE_KEY_LIMIT = 64
TTL_LIMIT = 2_592_000
#: As long as Chaski itself holds a message of this channel.
_USUAL_TTL = 14_400
_LATEST_SECOND = 253_402_300_799
#: Apple says that tokens vary in length, and at most 100 bytes.
_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){8,100}")
_TOPIC = re.compile(r"[A-Za-z0-9.-]{1,200}")
_PRIORITY = {"high": "10", "normal": "5", "low": "1"}
#: Who says so takes nothing more on this connection.
_CONNECTION_OVER = frozenset({"IdleTimeout", "Shutdown"})

CODES = Codes(
    "https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns",
    {
        NotSent: {
            "IdleTimeout": "Apple has ended the connection and took nothing",
            "Shutdown": "Apple's server is going down and took nothing",
            "ExpiredProviderToken": "Apple takes our signature for over an hour old: is the database's clock right?",
        },
        Throttled: {
            "TooManyRequests": "too many messages to the same device in a short time",
            "TooManyProviderTokenUpdates": Code(
                Throttled, "the key signs too often; is another program using it too?", wait=1200.0
            ),
        },
        Transient: {
            "InternalServerError": "something went wrong at Apple",
            "ServiceUnavailable": "Apple is away for a moment",
        },
        RecipientRefused: {
            "Unregistered": Code(RecipientRefused, "the app is gone from the device", suppress=True),
            "ExpiredToken": Code(RecipientRefused, "the device token has expired", suppress=True),
            "BadDeviceToken": "it is no device token, or one for Apple's other environment: sandbox or production",
            # Tokens come from people's devices: one that is another app's must not stop everybody else's messages.
            "DeviceTokenNotForTopic": "the device token is another app's: is the topic the bundle ID of this one?",
        },
        ContentRefused: {
            "BadCollapseId": "the collapse key is not what Apple takes",
            "BadExpirationDate": "the time to live is not what Apple takes",
            "BadMessageId": "the message's id is not what Apple takes",
            "BadPath": "the address of the request is not what Apple takes",
            "BadPriority": "the priority is not what Apple takes",
            "DuplicateHeaders": "the request says something twice",
            "InvalidPushType": "the kind of notification is not what Apple takes",
            "MethodNotAllowed": "the request is not what Apple takes",
            "MissingDeviceToken": "the request has no device token",
            "PayloadEmpty": "there is nothing in it",
            "PayloadTooLarge": "the notification is too large",
        },
        Misconfigured: {
            "BadCertificate": "Apple does not take the account's proof",
            "BadCertificateEnvironment": "the account is for Apple's other environment: sandbox or production",
            "BadEnvironmentKeyIdInToken": "the key is for Apple's other environment: sandbox or production",
            "BadEnvironmentKeyInToken": "the key is for Apple's other environment: sandbox or production",
            "BadTopic": "the topic is no app's; it should be the app's bundle ID",
            "Forbidden": "Apple does not allow it",
            "InvalidProviderToken": "Apple refuses the signature: do key, key_id and team_id belong together?",
            "MissingProviderToken": "Apple found no signature",
            "MissingTopic": "the account has no topic",
            "TopicDisallowed": "the team may not send to the app that the topic names",
            "UnrelatedKeyIdInToken": "the key is not the one with which this connection began",
        },
    },
)


def _data(value: Any) -> str:
    if not isinstance(value, dict) or "aps" in value:
        return "must be an object without aps, which is Apple's own"
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # so is half a character
        return "must hold whole characters and finite numbers"
    return ""


def _collapse_key(value: Any) -> str:
    fits = not rules.text(value) and value.isprintable() and 0 < len(value.encode()) <= COLLAPSE_KEY_LIMIT
    return "" if fits else f"must be a text of 1 to {COLLAPSE_KEY_LIMIT} bytes"


_RULES: dict[str, rules.Rule] = {
    "data": _data,
    "badge": rules.whole(0, 99_999),
    "sound": rules.text,
    "mutable_content": rules.FLAG,
    "content_available": rules.FLAG,
    "category": rules.text,
    "thread_id": rules.text,
    "collapse_key": _collapse_key,
    "priority": rules.one_of(*_PRIORITY),
    "ttl": rules.whole(0, TTL_LIMIT),
    "registered_at": rules.whole(0, _LATEST_SECOND),
}
#: Options that stand in the payload under ``aps``, in Apple's words.
_IN_APS = {
    "badge": "badge",
    "sound": "sound",
    "category": "category",
    "thread_id": "thread-id",
    "mutable_content": "mutable-content",
    "content_available": "content-available",
}
#: What is worth a message without a text.
_ENOUGH = ("badge", "sound", "data", "content_available")


class Apns(Provider):
    """APNs knows no message again and sends no receipts: a request without an answer stays in doubt. With a ``collapse_key`` a
    repeat replaces what the device shows. Each account has its own connections: Apple ties one to the first key that it sees."""

    name = "apns"
    channels = ("push",)
    options = (
        *apple_login.OPTIONS,
        Option("topic", "the app's bundle ID, such as com.example.shop", required=True),
        Option(
            "base_url",
            "where the API is; https://api.sandbox.push.apple.com for apps that are in development",
            default="https://api.push.apple.com",
        ),
    )
    message_options = {
        "data": "an object for the app, beside the text or instead of it; alone it wakes the app and shows nothing",
        "badge": "the number on the app's icon; 0 takes it away",
        "sound": "the name of a sound in the app, or default",
        "mutable_content": "true: the app may change the notification before it is shown",
        "content_available": "true: the app is woken to fetch something",
        "category": "the kind of notification, by which the app offers its buttons",
        "thread_id": "notifications with one of these are shown as a group",
        "collapse_key": "a notification replaces the one with the same key; up to 64 bytes",
        "priority": "high (at once, as is usual), normal (when it suits the device's battery) or low",
        "ttl": "seconds for which Apple keeps it for a device that is away, 0 to 2,592,000; 14,400 if not set",
        "registered_at": "when the app told its device token, in seconds since 1970: an older report of its end is ignored",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._login = _login(settings)
        self._http2 = Http2Client(self.base_url)

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the key must be able to sign."""
        checked = super().check(settings)
        _login(checked)
        if not _TOPIC.fullmatch(checked["topic"]):
            raise InvalidOption("topic", "must be a bundle ID: letters, digits, dots and hyphens")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """A text, data, a badge or a sound, which as JSON have up to 4,096 bytes; and a recipient that is no device token."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if any(_holds(outbound.options.get(name)) for name in _ENOUGH):
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: a notification has no HTML part"
        if not refused and len(_payload(outbound)) > PAYLOAD_LIMIT:
            refused["text"] = f"must have at most {PAYLOAD_LIMIT:,} bytes as JSON together with subject and data"
        if not _TOKEN.fullmatch(outbound.to):
            refused["to"] = "must be a device token in hexadecimal digits"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Send to the app whose token is ``to``. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        if not _TOKEN.fullmatch(outbound.to):
            raise RecipientRefused("invalid_token", "the recipient must be a device token in hexadecimal digits")
        response = await self._http2.request(
            "POST",
            f"/3/device/{outbound.to}",
            headers=self._headers(outbound),
            body=_payload(outbound),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response, outbound)
        if not response.headers.get("apns-id"):
            raise unreadable(response)
        return Accepted(response.headers["apns-id"])

    async def close(self) -> None:
        """End the connections."""
        await self._http2.close()

    def _headers(self, outbound: Outbound) -> dict[str, str]:
        given = rules.given(outbound.options, _RULES)
        alert = _is_seen(outbound)
        told = {
            "authorization": f"bearer {self._login.token(outbound.at)}",
            "content-type": "application/json",
            "apns-id": outbound.message_id,
            "apns-topic": self.settings["topic"],
            "apns-push-type": "alert" if alert else "background",
            "apns-expiration": _expires_at(given.get("ttl", _USUAL_TTL), outbound),
            "apns-priority": _PRIORITY.get(given.get("priority", ""), "") if alert else _PRIORITY["normal"],
            "apns-collapse-id": given.get("collapse_key", ""),
        }
        return {name: value for name, value in told.items() if value}

    def _error(self, response: HttpResponse, outbound: Outbound) -> SendError:
        told, wait = json_error(response), retry_after(response.headers)
        code = self.redact(str(told.get("reason", "")))
        error = CODES.error(code, retry_after=wait) or by_status(response, code=code)
        if code in _CONNECTION_OVER:
            self._http2.retire()
        if code == "TooManyRequests" and isinstance(error, Throttled):
            error.scope = Scope.RECIPIENT
        if isinstance(error, Transient):
            error.retry_after = wait
        if isinstance(error, RecipientRefused) and error.suppress:
            error.suppress = not _registered_since(told.get("timestamp"), outbound)
        return error


def _login(settings: Mapping[str, str]) -> Login:
    return Login(settings["key"], settings["key_id"], settings["team_id"])


def _payload(outbound: Outbound) -> bytes:
    options = rules.given(outbound.options, _RULES)
    alert = _filled({"title": outbound.subject, "body": outbound.text})
    aps = _filled({"alert": alert} | {word: options.get(name) for name, word in _IN_APS.items()})
    if not _is_seen(outbound):
        aps["content-available"] = True
    # Apple wants 1 where JSON has true.
    numbered = {name: 1 if value is True else value for name, value in aps.items()}
    payload = {"aps": numbered} | options.get("data", {})
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _is_seen(outbound: Outbound) -> bool:
    """Seen or heard; else it only wakes the app, which Apple wants to be told."""
    options = outbound.options
    return bool(outbound.text or outbound.subject or options.get("sound")) or options.get("badge") is not None


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if _holds(value)}


def _holds(value: Any) -> bool:
    """A number says something, 0 too."""
    return bool(value) or type(value) is int


def _expires_at(ttl: int, outbound: Outbound) -> str:
    """Apple wants a time, or 0 for what is tried only once."""
    return str(int(outbound.at.timestamp()) + ttl if ttl else 0)


def _registered_since(gone_at: Any, outbound: Outbound) -> bool:
    """Did the app register after the moment, in milliseconds, at which Apple saw it gone?

    Only who sends can know that, and tells it by an option. Without it Apple's word stands: a token that was registered
    again would not have been refused just now.
    """
    registered_at = outbound.options.get("registered_at")
    return type(gone_at) is int and registered_at is not None and registered_at * 1000 > gone_at
