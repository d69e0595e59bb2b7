"""Twilio, Telegram and WhatsApp as their OpenAPI files have them, played by Prism: it refuses what the file does not describe.

Left out: Twilio's MediaUrl, for Prism reads no list from a form; Telegram's media methods, which take JSON by the Bot
API's documentation and only multipart by the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from channels.base import (
    Accepted,
    ContentRefused,
    Misconfigured,
    NotAllowedNow,
    Outbound,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient, HttpResponse
from channels.telegram import Telegram
from channels.twilio import Twilio
from channels.whatsapp_cloud import WhatsAppCloud
from tests.channels.contract import Remembering, attachment

pytestmark = pytest.mark.doubles

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"
TWILIO = {"account_sid": "AC" + "0" * 32, "auth_token": "token", "from_number": "+15005550006"}
Play = Callable[[str], str]


class Asking(HttpClient):
    """Asks Prism for a certain answer where the URL ends in ``at``, and keeps what it says about the request."""

    def __init__(self, prefer: str = "", at: str = "") -> None:
        super().__init__()
        self._prefer, self._at = prefer, at
        self.violations: list[str] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], **more: Any) -> HttpResponse:
        """As asked, with the preference."""
        wanted = {"Prefer": self._prefer} if self._prefer and url.endswith(self._at) else {}
        answer = await super().request(method, url, headers={**headers, **wanted}, **more)
        self.violations += [answer.headers[name] for name in answer.headers if name.lower() == "sl-violations"]
        return answer


@pytest.fixture(scope="module")
def twilio_url(prism: Play) -> str:
    """Twilio."""
    return prism("twilio/twilio_api_v2010.json")


@pytest.fixture(scope="module")
def telegram_url(prism: Play) -> str:
    """The Bot API."""
    return prism("telegram/openapi.prism-ready.json")


async def twilio(url: str, prefer: str = "", settings: Mapping[str, str] = TWILIO, **changes: Any) -> Accepted:
    """One SMS to ``url``."""
    fields = {"message_id": MESSAGE_ID, "channel": "sms", "to": "+56912345678", "text": "¡Hola!"}
    async with Asking(prefer) as http:
        account = Twilio(Twilio.check({**settings, "base_url": url}), http)
        accepted = await account.send(Outbound(**{**fields, **changes}))
        assert http.violations == []
        return accepted


async def telegram(url: str, prefer: str = "", **changes: Any) -> Accepted:
    """One Telegram message to ``url``."""
    fields = {"message_id": MESSAGE_ID, "channel": "telegram", "to": "123456789", "text": "¡Hola!"}
    async with Asking(prefer) as http:
        account = Telegram(Telegram.check({"token": "1000000:token", "base_url": url}), http)
        accepted = await account.send(Outbound(**{**fields, **changes}))
        assert http.violations == []
        return accepted


@pytest.fixture(scope="module")
def whatsapp_url(prism: Play) -> str:
    """Meta's Cloud API."""
    return prism("meta/business-messaging.prism-ready.json")


async def whatsapp(url: str, prefer: str = "", at: str = "", **changes: Any) -> Accepted:
    """One WhatsApp message to ``url``."""
    fields = {"message_id": MESSAGE_ID, "channel": "whatsapp", "to": "+56912345678", "text": "¡Hola!"}
    settings = {"phone_number_id": "106540352242922", "token": "EAAG", "base_url": f"{url}/v23.0"}
    async with Asking(prefer, at) as http:
        account = WhatsAppCloud(WhatsAppCloud.check(settings), http)
        accepted = await account.send(Outbound(**{**fields, **changes}))
        assert http.violations == []
        return accepted


class TestTwilio:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"receipts_url": "https://chaski.example/receipts/1"},
            {"options": {"validity_seconds": 600}},
            {"text": "", "options": {"content_sid": "HX" + "a" * 32, "content_variables": '{"1": "Ana"}'}},
        ],
    )
    def test_what_is_sent_is_what_the_file_describes(self, changes: dict[str, Any], twilio_url: str) -> None:
        accepted = asyncio.run(twilio(twilio_url, **changes))
        assert accepted.provider_message_id.startswith(("SM", "MM"))

    def test_a_messaging_service_may_take_the_senders_place(self, twilio_url: str) -> None:
        settings = {**TWILIO, "from_number": "", "messaging_service_sid": "MG" + "a" * 32}
        asyncio.run(twilio(twilio_url, settings=settings))

    def test_a_path_that_the_file_does_not_have_points_at_the_account(self, twilio_url: str) -> None:
        with pytest.raises(Misconfigured):
            asyncio.run(twilio(twilio_url + "/elsewhere"))


class TestTelegram:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"to": "@shop_news"},
            {"options": {"parse_mode": "HTML", "disable_notification": True, "message_thread_id": 7}},
            {"options": {"reply_markup": {"inline_keyboard": [[{"text": "Open", "url": "https://shop.example/"}]]}}},
            {"options": {"link_preview_options": {"is_disabled": True}, "protect_content": True}},
        ],
    )
    def test_what_is_sent_is_what_the_file_describes(self, changes: dict[str, Any], telegram_url: str) -> None:
        accepted = asyncio.run(telegram(telegram_url, **changes))
        chat, _, number = accepted.provider_message_id.partition(":")
        assert chat
        assert number.isdigit()

    def test_a_429_of_the_files_shape_is_a_throttle(self, telegram_url: str) -> None:
        with pytest.raises(Throttled):
            asyncio.run(telegram(telegram_url, "code=429"))

    @pytest.mark.parametrize("code", [400, 401, 403, 404])
    def test_a_refusal_of_the_files_shape_is_final(self, code: int, telegram_url: str) -> None:
        with pytest.raises(SendError) as caught:
            asyncio.run(telegram(telegram_url, f"code={code}"))
        assert caught.value.error_class in ("content_refused", "recipient_refused", "misconfigured")


class TestWhatsApp:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"options": {"preview_url": True, "reply_to": "wamid.HBgL"}},
            {"options": {"image_url": "https://shop.example/a.jpg"}},
            {"text": "", "options": {"audio_url": "https://shop.example/a.ogg"}},
            {"options": {"document_url": "https://shop.example/a.pdf", "filename": "a.pdf"}},
            {"text": "", "options": {"template": {"name": "order_sent", "language": {"code": "es"}}}},
        ],
    )
    def test_what_is_sent_is_what_the_file_describes(self, changes: dict[str, Any], whatsapp_url: str) -> None:
        accepted = asyncio.run(whatsapp(whatsapp_url, **changes))
        assert accepted.provider_message_id.startswith("wamid.")

    def test_a_file_is_uploaded_and_named_as_the_file_describes(self, whatsapp_url: str) -> None:
        keeper = Remembering()
        guide = replace(attachment("application/pdf"), keeper=keeper)
        example = "example=Upload Audio JSON"  # the first one has a placeholder for the id
        accepted = asyncio.run(whatsapp(whatsapp_url, example, "/media", attachments=(guide,)))
        assert accepted.provider_message_id.startswith("wamid.")
        assert keeper.media is not None

    @pytest.mark.parametrize(
        ("prefer", "expected"),
        [
            ("code=400, example=e131026", RecipientRefused),
            ("code=400, example=e131047", NotAllowedNow),
            ("code=400, example=e131056", Throttled),
            ("code=400, example=e132001", ContentRefused),
            ("code=400, example=e368", Misconfigured),
            ("code=401, example=e190", Misconfigured),
            ("code=429, example=e130429", Throttled),
            ("code=500, example=e131016", Transient),
        ],
    )
    def test_an_error_of_the_files_shape_is_classed_by_its_code(
        self, prefer: str, expected: type[SendError], whatsapp_url: str
    ) -> None:
        with pytest.raises(expected):
            asyncio.run(whatsapp(whatsapp_url, prefer))
