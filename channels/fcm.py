"""Push messages to apps and browsers through Firebase Cloud Messaging (FCM), its HTTP v1 API.

Used by the delivery engine. A recipient is the registration token of one installed app.
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from channels import google_login, rules
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    Misconfigured,
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
from channels.google_login import Login, ServiceAccount
from channels.http import HttpClient, HttpResponse
from channels.rates import Rate, Rates

PAYLOAD_LIMIT = 4096
TTL_LIMIT = 2_419_200
#: Apple's; Google names none.
COLLAPSE_KEY_LIMIT = 64
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_NAME = re.compile(r"projects/[^/\s]{1,100}/messages/\S{1,300}")
#: What FCM uses itself: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, "Invalid data key".
_RESERVED = re.compile(r"from\Z|gcm\Z|google")
#: Said of a quota that is the device's and not the project's.
_DEVICE = re.compile("device", re.I)
_APPLES_PRIORITY = {"high": "10", "normal": "5"}

CODES = Codes(
    "https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode",
    {
        Throttled: {
            "QUOTA_EXCEEDED": Code(Throttled, "more messages than FCM takes in a minute", wait=60.0),
            "RESOURCE_EXHAUSTED": Code(Throttled, "the project's quota is spent for the moment", wait=60.0),
        },
        Transient: {
            "UNAVAILABLE": "FCM is overloaded or away for a moment",
            "INTERNAL": "something went wrong at FCM",
        },
        RecipientRefused: {
            "UNREGISTERED": Code(
                RecipientRefused, "the app is gone from the device, or has a new token", suppress=True
            ),
            "SENDER_ID_MISMATCH": "the token was given to an app of another Firebase project",
            "INVALID_ARGUMENT/token": "what was given is no registration token",
        },
        ContentRefused: {"INVALID_ARGUMENT": "a field is not what FCM takes"},
        Misconfigured: {
            "THIRD_PARTY_AUTH_ERROR": "Apple or the browser's vendor refuses the keys that the Firebase project has for it",
            "APNS_AUTH_ERROR": "Apple refuses the key that the Firebase project has for it",
            "UNAUTHENTICATED": "Google refuses the access token, and a new one too",
            "PERMISSION_DENIED": "the service account may not send; is the API enabled, and its role right?",
        },
    },
)


def _data(value: Any) -> str:
    if fault := rules.texts(value):
        return fault
    reserved = sorted(name for name in value if _RESERVED.match(name))
    return f"must not hold {', '.join(reserved)}: FCM uses that itself" if reserved else ""


def _collapse_key(value: Any) -> str:
    fits = not rules.text(value) and 0 < len(value.encode()) <= COLLAPSE_KEY_LIMIT
    return "" if fits else f"must be a text of 1 to {COLLAPSE_KEY_LIMIT} bytes"


_RULES: dict[str, rules.Rule] = {
    "data": _data,
    "collapse_key": _collapse_key,
    "image": rules.text,
    "priority": rules.one_of("normal", "high"),
    "ttl": rules.whole(0, TTL_LIMIT),
}


class Fcm(Provider):
    """FCM takes no key of ours and sends no receipts: a request without an answer stays in doubt. With a ``collapse_key`` a
    repeat replaces what the device has not shown yet."""

    name = "fcm"
    channels = ("push",)
    #: https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas
    usual_rates = Rates(Rate(600_000, 60.0))
    options = (
        google_login.OPTION,
        Option("base_url", "where the API is", default="https://fcm.googleapis.com"),
        Option("token_url", "where access tokens are given; the file's token_uri if not set"),
    )
    message_options = {
        "data": "an object of texts for the app, beside the text or instead of it",
        "collapse_key": "of the messages with one key a device that was away shows the last; up to 64 bytes",
        "image": "the URL of an image",
        "priority": "high to wake the device, or normal",
        "ttl": "seconds for which FCM keeps it for a device that is away, 0 to 2,419,200",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        account = ServiceAccount.read(settings["service_account"])
        self._login = Login(account, _SCOPE, settings.get("token_url") or account.token_uri, http)
        self._url = f"{self.base_url}/v1/projects/{account.project_id}/messages:send"

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the service account's file must be one."""
        checked = super().check(settings)
        ServiceAccount.read(checked["service_account"])
        if checked["token_url"] and not checked["token_url"].startswith(("https://", "http://")):
            raise InvalidOption("token_url", "must begin with https:// (or http://)")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """FCM takes a text, data, or both, up to 4,096 bytes."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if outbound.options.get("data"):
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: a notification has no HTML part"
        if not refused and _payload_bytes(outbound) > PAYLOAD_LIMIT:
            refused["text"] = f"must have at most {PAYLOAD_LIMIT:,} bytes together with subject, image and data"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Send to the app whose token is ``to``; once more where Google refuses our access token. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        ends_at, wait = time.monotonic() + self.call_seconds, self.call_seconds / 3
        body = json.dumps({"message": _message(outbound)}).encode()
        token = await self._login.token(outbound.at, wait)
        response = await self._post(body, token, ends_at)
        if _code(response) == "UNAUTHENTICATED":  # so FCM has not taken it
            token = await self._login.token(outbound.at, min(wait, _left(ends_at)), refused=token)
            response = await self._post(body, token, ends_at)
        if not is_success(response):
            raise self._error(response)
        name = json_object(response).get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise unreadable(response)
        return Accepted(name)

    async def _post(self, body: bytes, token: str, ends_at: float) -> HttpResponse:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return await self.http.request("POST", self._url, headers=headers, body=body, timeout=_left(ends_at))

    def _error(self, response: HttpResponse) -> SendError:
        told, code, wait = _told(response), _code(response), retry_after(response.headers)
        said = self.redact(str(told.get("message", "")))
        error = CODES.error(code, said, retry_after=wait) or by_status(response, said, code)
        if isinstance(error, Transient):
            error.retry_after = wait
        if isinstance(error, Throttled) and _DEVICE.search(str(told)):
            error.scope = Scope.RECIPIENT
        return error


def _left(ends_at: float) -> float:
    return max(ends_at - time.monotonic(), 0.0)


def _told(response: HttpResponse) -> dict[str, Any]:
    """What a refusal says, empty for a success and for what is not FCM's."""
    told = {} if is_success(response) else json_error(response).get("error")
    return told if isinstance(told, dict) else {}


def _code(response: HttpResponse) -> str:
    """FCM's own code where the answer has one, else Google's status; with ``/token`` where the recipient is what is wrong."""
    told = _told(response)
    own = _detail(told, "FcmError").get("errorCode")
    code = str(own or told.get("status", ""))
    return f"{code}/token" if code == "INVALID_ARGUMENT" and _refuses_the_token(told) else code


def _refuses_the_token(told: Mapping[str, Any]) -> bool:
    """By the fields that are named, else by the kind of the answer.

    https://firebase.google.com/docs/cloud-messaging/error-codes
    """
    violations = _detail(told, "BadRequest").get("fieldViolations")
    if not isinstance(violations, list) or not violations:
        return bool(_detail(told, "FcmError"))
    return all(isinstance(each, dict) and each.get("field") == "message.token" for each in violations)


def _detail(told: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What the answer holds of the type ``kind``, empty where there is none."""
    details = told.get("details")
    for each in details if isinstance(details, list) else []:
        if isinstance(each, dict) and str(each.get("@type")).endswith(f".{kind}"):
            return each
    return {}


def _message(outbound: Outbound) -> dict[str, Any]:
    options = rules.given(outbound.options, _RULES)
    notification = {"title": outbound.subject, "body": outbound.text, "image": options.get("image")}
    fields = {"token": outbound.to, "notification": _filled(notification), "data": options.get("data")}
    return _filled(fields | _platforms(options, outbound.at))


def _platforms(options: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Priority, time to live and key as Android, Apple and browsers want them."""
    priority, key, ttl = (options.get(name) for name in ("priority", "collapse_key", "ttl"))
    android = {"priority": priority, "collapse_key": key}
    apple = {"apns-priority": _APPLES_PRIORITY.get(priority or ""), "apns-collapse-id": key}
    browser = {"Urgency": priority}
    if ttl is not None:
        android["ttl"], apple["apns-expiration"], browser["TTL"] = f"{ttl}s", _expires_at(ttl, at), str(ttl)
    headers = {"apns": _filled(apple), "webpush": _filled(browser)}
    return {"android": _filled(android)} | {name: _filled({"headers": each}) for name, each in headers.items()}


def _expires_at(ttl: int, at: datetime) -> str:
    """Apple wants a time, or 0 for what is tried only once.

    https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
    """
    return str(int(at.timestamp()) + ttl if ttl else 0)


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _payload_bytes(outbound: Outbound) -> int:
    """Of names and values, as FCM counts."""
    data = outbound.options.get("data") or {}
    texts = [outbound.subject, outbound.text, outbound.options.get("image") or "", *data, *data.values()]
    return sum(len(text.encode()) for text in texts)
