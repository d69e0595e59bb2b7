"""Web push as web-push-testing plays it: the encryption by another implementation, the signature by another library."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from channels.base import Accepted, ContentRefused, Outbound, RecipientRefused
from channels.http import HttpClient
from channels.media import MEDIA
from channels.webpush import WebPush

pytestmark = pytest.mark.doubles

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"


def b64(value: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(value).decode().rstrip("=")


@dataclass(frozen=True)
class Sender:
    """An account's VAPID key."""

    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> str:
        """What a page subscribes with."""
        return b64(self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    async def send(self, url: str, to: str, **changes: Any) -> Accepted:
        """One message, asked for at ``url``."""
        secret = b64(self.key.private_numbers().private_value.to_bytes(32, "big"))
        settings = {"vapid_private_key": secret, "subject": "mailto:ops@shop.example", "base_url": url}
        fields = {"message_id": MESSAGE_ID, "channel": "webpush", "to": to, "text": "¡Hola! 👋"}
        async with HttpClient() as http:
            return await WebPush(WebPush.check(settings), http).send(Outbound(**{**fields, **changes}))


@pytest.fixture
def sender() -> Sender:
    """A new one."""
    return Sender(ec.generate_private_key(ec.SECP256R1()))


def post(url: str, fields: Mapping[str, str]) -> Any:
    """What the double answers to JSON."""
    request = Request(url, json.dumps(fields).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        said = answer.read()
    return json.loads(said)["data"] if said.startswith(b"{") else None


def subscribed(url: str, sender: Sender) -> tuple[str, str]:
    """A browser of the double's: its name there, and the recipient, as if its endpoint were a known push service's."""
    given = post(f"{url}/subscribe", {"userVisibleOnly": "true", "applicationServerKey": sender.public})
    endpoint = f"https://updates.push.services.mozilla.com/notify/{given['clientHash']}"
    return given["clientHash"], MEDIA["webpush"].normalise(json.dumps({"endpoint": endpoint, "keys": given["keys"]}))


def read(url: str, browser: str) -> list[Any]:
    """What a browser has decrypted."""
    messages = post(f"{url}/get-notifications", {"clientHash": browser})["messages"]
    return [json.loads(each) for each in messages]


def test_a_browser_reads_what_was_sent(push_service: str, sender: Sender) -> None:
    browser, to = subscribed(push_service, sender)
    asyncio.run(sender.send(push_service, to, subject="Pedido nº 7", options={"data": {"url": "/orders/7"}, "ttl": 60}))
    asyncio.run(sender.send(push_service, to, text="x" * 3900))
    first, second = read(push_service, browser)
    assert first == {"title": "Pedido nº 7", "body": "¡Hola! 👋", "id": MESSAGE_ID, "data": {"url": "/orders/7"}}
    assert second["body"] == "x" * 3900


def test_a_subscription_that_has_ended_is_not_written_to_again(push_service: str, sender: Sender) -> None:
    browser, to = subscribed(push_service, sender)
    post(f"{push_service}/expire-subscription/{browser}", {})
    with pytest.raises(RecipientRefused) as caught:
        asyncio.run(sender.send(push_service, to))
    assert (caught.value.code, caught.value.suppress) == ("http_410", True)


def test_another_accounts_signature_is_refused(push_service: str, sender: Sender) -> None:
    browser, to = subscribed(push_service, sender)
    stranger = Sender(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ContentRefused, match="Crypto-Key"):
        asyncio.run(stranger.send(push_service, to))
    assert read(push_service, browser) == []
