"""SMS through Vonage's SMS API. https://developer.vonage.com/en/api/sms

Used by the delivery engine and the receipts endpoint. Vonage answers 200 for everything; each part of the message has a
``status`` of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from channels import rules
from channels.answers import by_status, is_success, json_object, retry_after, unreadable
from channels.base import (
    DETAIL_LIMIT,
    Accepted,
    ContentRefused,
    Forged,
    InboundRequest,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    Reply,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.codes import Codes
from channels.http import HttpClient, HttpResponse
from channels.reports import our_id

#: Ten parts of a concatenated message, of 153 characters each.
TEXT_LIMIT = 1530
_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_GSM_ONLY = re.compile(r"[\x0a\x0d\x20-\x5f\x61-\x7e¡£¤¥§¿ÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùüΓΔΘΛΞΠΣΦΨΩ€]*")
_RULES: dict[str, rules.Rule] = {"ttl_seconds": rules.whole(20, 604_800), "from": rules.text}
_KINDS = {
    "delivered": ReceiptKind.DELIVERED,
    "accepted": ReceiptKind.SENT,
    "buffered": ReceiptKind.SENT,
    "failed": ReceiptKind.UNDELIVERED,
    "rejected": ReceiptKind.UNDELIVERED,
    "expired": ReceiptKind.UNDELIVERED,
}
CODES = Codes(
    "https://developer.vonage.com/en/messaging/sms/guides/troubleshooting-sms",
    {
        Throttled: {"1": "the account sends faster than its limit"},
        Transient: {"5": "Vonage broke; it may have gone", "10": "Vonage has no line free for the moment"},
        RecipientRefused: {
            "6": "the number's prefix is not one that can be reached",
            "7": "the number is barred",
            "33": "the number is deactivated",
        },
        ContentRefused: {
            "2": "a parameter is missing",
            "3": "a parameter is not what Vonage takes",
            "12": "it is too long",
        },
        Misconfigured: {
            "4": "key or secret is wrong",
            "8": "the account is barred",
            "9": "the account has no credit left",
            "11": "the account may not use the SMS API",
            "14": "the signature of the request is wrong",
            "15": "the sender is not one that may be used for this country",
            "22": "the account names a network that does not exist",
            "29": "a trial account may write only to its test numbers",
        },
    },
)
#: Of receipts: https://developer.vonage.com/en/messaging/sms/guides/delivery-receipts#dlr-error-codes
DELIVERY_CODES = {
    "1": "the network does not say why",
    "2": "the phone is off or out of reach",
    "3": "the number is not in use any more",
    "4": "the number may not be called",
    "5": "the number is being moved to another network",
    "6": "the network took it for spam",
    "7": "the phone was busy",
    "8": "the network broke",
    "9": "the number does not exist",
    "10": "the message is not one that the network takes",
    "11": "there is no way to the number",
    "12": "the network could not be reached",
    "13": "it is blocked by age",
    "14": "the carrier has blocked it",
    "15": "the prepaid card has no credit left",
    "99": "the network does not say why",
}


class Vonage(Provider):
    """Vonage takes no key of ours. Our id goes as ``client-ref`` and comes back with the receipt."""

    name = "vonage"
    channels = ("sms",)
    receipts = True
    replies = True
    options = (
        Option("api_key", "the account's API key", required=True),
        Option("api_secret", "the account's API secret", required=True, secret=True),
        Option("from", "the number or name that sends", required=True),
        Option("signature_secret", "the secret that signs receipts (SHA-256 HMAC)", secret=True),
        Option("base_url", "where the API is", default="https://rest.nexmo.com"),
    )
    message_options = {
        "ttl_seconds": "how long the network tries, 20 seconds to 7 days",
        "from": "another sender than the account's",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{(settings.get('base_url') or 'https://rest.nexmo.com').rstrip('/')}/sms/json"

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Text only, up to 1,530 characters (670 where it holds others than GSM has)."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        limit = TEXT_LIMIT if _GSM_ONLY.fullmatch(outbound.text) else 670
        if not 0 < len(outbound.text) <= limit:
            refused["text"] = f"must have 1 to {limit:,} characters; an SMS has no HTML part"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the message. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        response = await self.http.request(
            "POST",
            self._url,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body=urlencode(list(self._form(outbound))).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise by_status(response)
        parts = json_object(response).get("messages")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise unreadable(response)
        return self._accepted(parts, response)

    def _form(self, outbound: Outbound) -> Iterator[tuple[str, str]]:
        yield "api_key", self.settings["api_key"]
        yield "api_secret", self.settings["api_secret"]
        yield "from", outbound.options.get("from") or self.settings["from"]
        yield "to", outbound.to.removeprefix("+")
        yield "text", outbound.text
        if not _GSM_ONLY.fullmatch(outbound.text):
            yield "type", "unicode"
        yield "client-ref", outbound.message_id
        if outbound.options.get("ttl_seconds") is not None:
            yield "ttl", str(outbound.options["ttl_seconds"] * 1000)
        if outbound.receipts_url:
            yield "callback", outbound.receipts_url

    def _accepted(self, parts: list[dict[str, Any]], response: HttpResponse) -> Accepted:
        """All parts were taken, or what the first refusal says. Some parts taken are a message that arrives broken."""
        refused = [part for part in parts if str(part.get("status", "")) != "0"]
        if refused:
            raise self._error(refused[0], response, some=len(refused) < len(parts))
        found = parts[0].get("message-id")
        if not isinstance(found, str) or not _MESSAGE_ID.fullmatch(found):
            raise unreadable(response)
        return Accepted(found, f"{len(parts)} parts" if len(parts) > 1 else "")

    def _error(self, part: Mapping[str, Any], response: HttpResponse, *, some: bool) -> SendError:
        if "status" not in part:
            return unreadable(response)
        code, said = str(part["status"]), self.redact(str(part.get("error-text", "")))
        if some:
            return Transient(code, f"only some of its parts were taken: {said}")
        known = CODES.error(code, said, retry_after=retry_after(response.headers))
        return known or ContentRefused(code, f"Vonage refused it: {said}")

    def verify(self, request: InboundRequest) -> None:
        """Check ``sig``: the HMAC-SHA256 of the other parameters in order, by the signature secret. Raises ``Forged``.

        https://developer.vonage.com/en/getting-started/concepts/signing-messages
        """
        secret = self.settings.get("signature_secret", "")
        if not secret:
            raise Forged("the account has no signature_secret, so no receipt can be believed")
        told = _told(request)
        given = told.get("sig", "")
        if not hmac.compare_digest(given.lower().encode(), signature(secret, told).encode()):
            raise Forged("sig does not match; is the account set to sign with SHA-256 HMAC?")

    def parse(self, request: InboundRequest) -> list[Receipt | Reply]:
        """The one status that a receipt tells, or the one SMS that came in. Raises ``Unreadable``."""
        told = _told(request)
        if "status" not in told and "msisdn" in told and told.get("messageId"):
            return [_reply(told)]
        found, word, code = told.get("messageId", ""), told.get("status", ""), told.get("err-code", "")
        if not _MESSAGE_ID.fullmatch(found) or not word:
            raise Unreadable("a receipt holds messageId and status")
        failed = code not in ("", "0")
        return [
            Receipt(
                event_id=f"{found}:{word[:32]}:{code[:16]}",
                kind=_KINDS.get(word, ReceiptKind.INFO),
                provider_message_id=found,
                message_id=our_id(told.get("client-ref", "")),
                at=_moment(told.get("message-timestamp", "")),
                code=code[:64] if failed else "",
                detail=(DELIVERY_CODES.get(code, word) if failed else word)[:DETAIL_LIMIT],
            )
        ]


def _reply(told: Mapping[str, str]) -> Reply:
    """https://developer.vonage.com/en/messaging/sms/guides/inbound-sms; a long one comes in parts, each a reply of its own."""
    return Reply(
        event_id=f"reply:{told['messageId'][:200]}",
        sender=f"+{told['msisdn'].removeprefix('+')}",
        text=told.get("text", ""),
        at=_moment(told.get("message-timestamp", "")),
    )


def signature(secret: str, told: Mapping[str, str]) -> str:
    """Of ``told`` without its ``sig``: names in order, & and = in values made underscores."""
    rows = sorted((name, value) for name, value in told.items() if name != "sig")
    text = "".join(f"&{name}={re.sub('[&=]', '_', value)}" for name, value in rows)
    return hmac.new(secret.encode(), text.encode(errors="replace"), hashlib.sha256).hexdigest()


def _told(request: InboundRequest) -> dict[str, str]:
    """The parameters, which Vonage sends by GET, as a form or as JSON, as the account is set; none of what is neither."""
    if request.method == "GET":
        return dict(request.query)
    try:
        if "json" not in request.headers.get("content-type", ""):
            return dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100))
        found = json.loads(request.body)
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
