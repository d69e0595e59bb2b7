"""Messages to browsers by Web Push: RFC 8030, encrypted by RFC 8291 and signed by RFC 8292 (VAPID).

Used by the delivery engine. A recipient is a subscription as the browser gives it, normalised by ``channels.media``.
https://www.rfc-editor.org/rfc/rfc8030#section-5
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import http_ece  # type: ignore[import-untyped]
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from yarl import URL

from channels import media, rules
from channels.answers import by_status, is_success, json_error, retry_after
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    InvalidRecipient,
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
from channels.http import HttpClient, HttpResponse, Reach

#: Of the 4,096 bytes that every push service takes the encryption needs 103: a header of 86, a mark of 1, a tag of 16.
PAYLOAD_LIMIT = 3993
TTL_LIMIT = 2_419_200
#: As long as Chaski itself holds a message of this channel.
_USUAL_TTL = 14_400
_WORDS_LIMIT = 300
_ID_LIMIT = 1000
#: A signature is used for an hour and holds for eleven more; one for over a day is refused: RFC 8292, section 2.
_HOUR_SECONDS, _HOLDS_HOURS = 3600, 12
_RAW_KEY = re.compile(r"[A-Za-z0-9_-]{43}=?")
_SUBJECT = re.compile(r"mailto:[^\s@<>]+@[^\s@<>]+|https://[^\s<>]+")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_HEADERS = {"urgency": "Urgency", "topic": "Topic"}
#: Said where the browser subscribed with another VAPID key than the account's: by Chrome's, Firefox's and Safari's services.
_OTHER_KEY = re.compile(r"do(es)? not correspond|public key mismatch|VapidPkHashMismatch", re.I)

CODES = Codes(
    "https://mozilla-services.github.io/autopush-rs/errors.html",
    {
        Transient: {
            "201": "the push service is overloaded",
            "202": "the push service is away for a moment",
            "900": "the push service cannot reach the one behind it",
            "901": "the push service cannot reach the one behind it",
            "902": "the push service cannot reach the one behind it",
            "903": "the push service cannot reach the one behind it",
            "999": "something went wrong at the push service",
        },
        RecipientRefused: {
            "http_404": Code(RecipientRefused, "there is no such subscription", suppress=True),
            "http_410": Code(RecipientRefused, "the subscription has ended", suppress=True),
            "102": Code(RecipientRefused, "there is no such subscription", suppress=True),
            "103": Code(RecipientRefused, "the subscription has ended", suppress=True),
            "105": Code(RecipientRefused, "the subscription has just ended", suppress=True),
            "106": Code(RecipientRefused, "the subscription is not valid any more", suppress=True),
            "108": "the subscription leads to a service that Firefox does not know",
            "other_key": "the browser subscribed with another VAPID key than this account's",
        },
        ContentRefused: {
            "101": "the encryption's keys are missing",
            "104": "it is too large",
            "110": "the encryption's keys are not valid",
            "111": "a header is missing",
            "112": "the time to live is not valid",
            "113": "the topic is not valid",
            "http_413": "it is too large",
        },
        Misconfigured: {
            "109": "the push service does not take the account's signature; is the VAPID key right?",
            "http_401": "the push service does not take the account's signature; is the VAPID key right?",
            "http_403": "the push service does not take the account's signature; are VAPID key and subject right?",
        },
    },
)


def _topic(value: Any) -> str:
    fits = isinstance(value, str) and _TOPIC.fullmatch(value)
    return "" if fits else "must have 1 to 32 letters, digits, - and _"


_RULES: dict[str, rules.Rule] = {
    "data": rules.texts,
    "ttl": rules.whole(0, TTL_LIMIT),
    "urgency": rules.one_of("very-low", "low", "normal", "high"),
    "topic": _topic,
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where a browser listens, and the keys with which it opens what comes."""

    endpoint: URL
    key: ec.EllipticCurvePublicKey
    auth: bytes

    @classmethod
    def read(cls, to: str) -> Subscription:
        """From a recipient. Raises ``InvalidRecipient``, also for an endpoint that is no known push service's."""
        given = json.loads(media.subscription(to))
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _bytes(given["keys"]["p256dh"]))
        except ValueError:
            raise InvalidRecipient("has a key p256dh that is no point of the curve P-256") from None
        return cls(URL(given["endpoint"]), key, _bytes(given["keys"]["auth"]))

    def encrypted(self, plain: bytes) -> bytes:
        """``plain`` as only the browser can read it, with a key made for this once: RFC 8291, one record."""
        key = ec.generate_private_key(ec.SECP256R1())
        encrypted: bytes = http_ece.encrypt(plain, private_key=key, dh=self.key, auth_secret=self.auth)
        return encrypted


class WebPush(Provider):
    """The message reaches the page's service worker as JSON: ``title``, ``body``, ``id`` and, where given, ``data``. Push
    services take no key of ours and send no receipts; the worker can know a repeat by its ``id``, which is the message's."""

    name = "webpush"
    channels = ("webpush",)
    one_host = False
    window = 200
    options = (
        Option("vapid_private_key", "the VAPID key: base64url of 32 bytes, or PEM", required=True, secret=True),
        Option("subject", "whom push services may write to: mailto:ops@shop.example", required=True),
        Option(
            "base_url", "for tests only: each request goes here, with the endpoint's path, instead of to the endpoint"
        ),
    )
    message_options = {
        "data": "an object of texts for the service worker, such as the address to open",
        "ttl": "seconds for which the push service keeps it for a browser that is away, 0 to 2,419,200; 14,400 if not set",
        "urgency": "very-low, low, normal or high: a device that saves power waits with the lesser ones",
        "topic": "replaces what waits under the same topic; up to 32 letters, digits, - and _",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._base = self.base_url
        self._key = _private_key(settings["vapid_private_key"])
        self._public = _text(self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        self._authorization = lru_cache(maxsize=64)(self._signed)

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the key must be able to sign, and the subject what Apple takes too."""
        checked = super().check(settings)
        _private_key(checked["vapid_private_key"])
        if not _SUBJECT.fullmatch(checked["subject"]):
            raise InvalidOption("subject", "must be mailto: and an address, or begin with https://, without blanks")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """A text, data, or both, which as JSON have up to 3,993 bytes; and a recipient whose key is none."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if outbound.options.get("data"):
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: a notification has no HTML part"
        if not refused and len(_payload(outbound)) > PAYLOAD_LIMIT:
            refused["text"] = f"must have at most {PAYLOAD_LIMIT:,} bytes as JSON together with subject and data"
        try:
            Subscription.read(outbound.to)
        except InvalidRecipient as error:
            refused["to"] = str(error)
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST it, encrypted, to the subscription's endpoint; any 2xx is acceptance. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        try:
            subscription = Subscription.read(outbound.to)
        except InvalidRecipient as error:
            raise RecipientRefused("invalid_subscription", f"the recipient {error}") from None
        response = await self.http.request(
            "POST",
            self._url(subscription.endpoint),
            headers=self._headers(subscription.endpoint, outbound),
            body=subscription.encrypted(_payload(outbound)),
            timeout=self.call_seconds,
            reach=Reach.VENDOR if self._base else Reach.PUBLIC,
        )
        if not is_success(response):
            raise self._error(response)
        return Accepted(response.headers.get("Location", "")[:_ID_LIMIT])

    def _url(self, endpoint: URL) -> str:
        return self._base + endpoint.raw_path_qs if self._base else str(endpoint)

    def _headers(self, endpoint: URL, outbound: Outbound) -> dict[str, str]:
        given = rules.given(outbound.options, _RULES)
        return {
            "Authorization": self._authorization(str(endpoint.origin()), int(outbound.at.timestamp()) // _HOUR_SECONDS),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(given.get("ttl", _USUAL_TTL)),
            **{header: given[name] for name, header in _HEADERS.items() if name in given},
        }

    def _signed(self, origin: str, hour: int) -> str:
        """Who sends, told to one push service; for its caller the same through all of ``hour``, counted from 1970."""
        claims = {"aud": origin, "exp": (hour + _HOLDS_HOURS) * _HOUR_SECONDS, "sub": self.settings["subject"]}
        return f"vapid t={jwt.encode(claims, self._key, algorithm='ES256')}, k={self._public}"

    def _error(self, response: HttpResponse) -> SendError:
        answer, wait = json_error(response), retry_after(response.headers)
        said = self.redact(_words(response, answer))
        status = f"http_{response.status}"
        if response.status == 429:  # of one subscription: RFC 8030, section 8.4
            return Throttled(status, said, retry_after=wait, scope=Scope.RECIPIENT)
        if 300 <= response.status < 400:
            return RecipientRefused(status, "the endpoint redirects, which is not followed")
        code = "other_key" if _OTHER_KEY.search(said) else str(answer.get("errno", ""))
        error = CODES.error(code, said) or CODES.error(status, said) or by_status(response, said, code or status)
        if isinstance(error, Transient):
            error.retry_after = wait
        return error


def _payload(outbound: Outbound) -> bytes:
    """What the service worker gets, the same on every attempt."""
    data = outbound.options.get("data")
    fields = {"title": outbound.subject, "body": outbound.text, "id": outbound.message_id}
    return json.dumps(fields | ({"data": data} if data else {}), ensure_ascii=False, separators=(",", ":")).encode()


def _words(response: HttpResponse, answer: Mapping[str, Any]) -> str:
    """Firefox's service says ``message``, Safari's ``reason``, the others speak plainly."""
    said = str(answer.get("message") or answer.get("reason") or response.body[:_WORDS_LIMIT].decode(errors="replace"))
    return "".join(character if character.isprintable() else " " for character in said).strip()


def _private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """Raises ``InvalidOption``, which shows nothing of it."""
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(text.encode(), None) if "-----BEGIN" in text else _raw_key(text)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidOption(
            "vapid_private_key", "must be a P-256 key: base64url of 32 bytes, or PEM without a password"
        )
    return key


def _raw_key(text: str) -> ec.EllipticCurvePrivateKey | None:
    if not _RAW_KEY.fullmatch(text):
        return None
    return ec.derive_private_key(int.from_bytes(_bytes(text.rstrip("="))), ec.SECP256R1())


def _bytes(text: str) -> bytes:
    """Of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
