"""Messages to any HTTPS endpoint, signed by Standard Webhooks; the callbacks to services go this way too.

Used by the delivery engine.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from standardwebhooks import Webhook as Signer
from yarl import URL

from channels import rules
from channels.answers import is_success, retry_after
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    InvalidRecipient,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient, HttpResponse, Reach
from channels.urls import webhook_url

#: The endpoint read this content and says that it will never take it.
_CONTENT = {400, 413, 415, 422}
_SECRET_BYTES = range(24, 65)


def _json(value: object) -> str:
    """UTF-8 as people read it; half a character (a lone surrogate) only passes as an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return json.dumps(value, separators=(",", ":")) if rules.text(text) else text


def _payload_rule(value: object) -> str:
    try:
        _json(value)
    except (TypeError, ValueError, RecursionError):
        return "must be something that JSON can say"
    return ""


_RULES: dict[str, rules.Rule] = {"type": rules.text, "payload": _payload_rule}


class Webhook(Provider):
    """``webhook-id`` is the message's id on every attempt: the receiver drops a repeat by it, so repeating is
    safe.

    One account serves many endpoints, so nothing that an endpoint answers concerns the account.
    """

    name = "webhook"
    channels = ("webhook",)
    idempotent = True
    one_host = False
    window = 200
    options = (
        Option("secret", "the signing secret: whsec_ and base64 of 24 to 64 bytes", required=True, secret=True),
        Option("previous_secret", "signs too while receivers move to the new one", secret=True),
        Option("base_url", "an egress host that requests go through instead of the recipient's own host"),
    )
    message_options = {
        "type": "the event's type, message.sent if not given",
        "payload": "the whole JSON body, instead of the usual type, timestamp and data",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        secrets = (settings["secret"], settings.get("previous_secret", ""))
        self._signers = [Signer(secret) for secret in secrets if secret]
        self._base_url = settings.get("base_url", "").rstrip("/")

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the secrets must be long enough to sign with."""
        checked = super().check(settings)
        for name in ("secret", "previous_secret"):
            if checked[name] and _secret_length(checked[name]) not in _SECRET_BYTES:
                raise InvalidOption(name, "must be whsec_ and base64 of 24 to 64 random bytes")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """What JSON cannot say; an event may consist of its metadata alone."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if outbound.options.get("payload") is not None or outbound.metadata:
            refused.pop("text", None)
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the event; any 2xx is acceptance. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        body = _json(_payload(outbound))
        response = await self.http.request(
            "POST",
            self._url(outbound.to),
            headers=self._headers(outbound.message_id, outbound.at, body),
            body=body.encode(),
            timeout=self.call_seconds,
            reach=Reach.VENDOR if self._base_url else Reach.PUBLIC,
        )
        if not is_success(response):
            raise _refusal(response)
        return Accepted(detail=f"HTTP {response.status}")

    def _url(self, to: str) -> str:
        """Where ``to`` is asked. What is no URL concerns this recipient, never the account behind ``base_url``."""
        if not self._base_url:
            return to
        try:
            return self._base_url + URL(webhook_url(to)).raw_path_qs
        except InvalidRecipient as error:
            raise RecipientRefused("url_refused", f"the URL {error}") from None

    def _headers(self, message_id: str, at: datetime, body: str) -> dict[str, str]:
        signatures = [signer.sign(message_id, at, body) for signer in self._signers]
        return {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def _payload(outbound: Outbound) -> object:
    """The event, the same bytes on every attempt."""
    if outbound.options.get("payload") is not None:
        return outbound.options["payload"]
    data = {
        "id": outbound.message_id,
        "text": outbound.text,
        "subject": outbound.subject,
        "html": outbound.html,
        "metadata": dict(outbound.metadata),
        "reference": outbound.reference,
    }
    return {
        "type": outbound.options.get("type", "message.sent"),
        "timestamp": _minted_at(outbound.message_id),
        "data": data,
    }


def _minted_at(message_id: str) -> str:
    """When the id was minted: a UUIDv7 begins with 48 bits of milliseconds (RFC 9562, section 5.7)."""
    milliseconds = UUID(message_id).int >> 80
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _secret_length(secret: str) -> int:
    text = secret.removeprefix("whsec_")
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except ValueError:
        return 0


def _refusal(response: HttpResponse) -> SendError:
    """By the specification 410 is the end, 429, 502 and 504 mean slower, and other failures are retried."""
    code, wait = f"http_{response.status}", retry_after(response.headers)
    if response.status == 410:
        return RecipientRefused(code, "the endpoint is gone", suppress=True)
    if 300 <= response.status < 400:
        return RecipientRefused(code, "the endpoint redirects, which is not followed; give its final URL")
    if response.status in _CONTENT:
        return ContentRefused(code, "the endpoint does not take this content")
    if response.status >= 500:
        return Transient(code, "the endpoint failed", retry_after=wait)
    return Throttled(code, "the endpoint refuses for now", retry_after=wait, scope=Scope.RECIPIENT)
