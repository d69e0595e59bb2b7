"""WhatsApp by Meta's Cloud API: what is asked for, what its codes mean, and what it reports."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from channels.base import (
    ContentRefused,
    Forged,
    InboundRequest,
    InvalidOption,
    Misconfigured,
    NotAllowedNow,
    ReceiptKind,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.http import HttpClient
from channels.whatsapp_cloud import CODES, WhatsAppCloud
from tests.channels.contract import attachment
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

WAMID = "wamid.HBgLMTY1MDUwNzY1MjAVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY3RTcA"
SECRET, WORD = "secret-of-the-app", "word-of-the-form"
OUR_ID = "01a21cdb-6965-70d7-8701-26e453af2fd5"


def no(status: int, code: int, message: str = "(#1) no", details: str = "", *headers: str) -> bytes:
    """Meta's refusal."""
    error = {"message": message, "type": "OAuthException", "code": code, "error_data": {"details": details}}
    return answer(status, json.dumps({"error": error}).encode(), *headers)


def report(*statuses: dict[str, Any]) -> bytes:
    """What Meta posts."""
    value = {"messaging_product": "whatsapp", "metadata": {}, "statuses": list(statuses)}
    entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def status(word: str, **more: Any) -> dict[str, Any]:
    return {
        "id": WAMID,
        "status": word,
        "timestamp": "1700000000",
        "recipient_id": "56912345678",
        "biz_opaque_callback_data": OUR_ID,
        **more,
    }


def signed(body: bytes, secret: str = SECRET) -> InboundRequest:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return InboundRequest(
        "POST", "https://chaski.example/receipts/1", {"x-hub-signature-256": f"sha256={digest}"}, {}, body
    )


def handshake(**query: str) -> InboundRequest:
    return InboundRequest(
        "GET", "https://chaski.example/receipts/1", {}, {f"hub.{k}": v for k, v in query.items()}, b""
    )


class TestWhatsAppCloud(HttpContract):
    provider = WhatsAppCloud
    channel = "whatsapp"
    to = "+56912345678"
    settings = {"phone_number_id": "106540352242922", "token": "EAAtoken", "app_secret": SECRET, "verify_token": WORD}
    accepted_body = json.dumps(
        {
            "messaging_product": "whatsapp",
            "contacts": [{"input": "56912345678", "wa_id": "56912345678"}],
            "messages": [{"id": WAMID, "message_status": "accepted"}],
        }
    ).encode()
    provider_message_id = WAMID

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, json.loads(body)

    async def test_a_text_goes_with_our_id(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="¡Hola! 👋")
        assert head.startswith(b"POST /106540352242922/messages HTTP/1.1\r\n")
        assert b"Authorization: Bearer EAAtoken" in head
        assert asked == {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": "56912345678",
            "biz_opaque_callback_data": self.outbound().message_id,
            "type": "text",
            "text": {"body": "¡Hola! 👋", "preview_url": False},
        }

    async def test_media_go_by_their_url_with_the_text_as_caption(self, server: Server, http: HttpClient) -> None:
        options = {"document_url": "https://shop.example/7.pdf", "filename": "order 7.pdf", "reply_to": WAMID}
        _, asked = await self.sent(server, http, options=options)
        assert asked["type"] == "document"
        assert asked["document"] == {
            "link": "https://shop.example/7.pdf",
            "caption": "Your order is on its way.",
            "filename": "order 7.pdf",
        }
        assert asked["context"] == {"message_id": WAMID}

    async def test_an_attachment_goes_by_its_url_with_its_name(self, server: Server, http: HttpClient) -> None:
        guide = attachment("application/pdf", name="guía.pdf")
        _, asked = await self.sent(server, http, attachments=(guide,))
        assert asked["document"] == {"link": guide.url, "caption": "Your order is on its way.", "filename": "guía.pdf"}
        _, asked = await self.sent(server, http, text="", attachments=(attachment("audio/ogg"),))
        assert (asked["type"], set(asked["audio"])) == ("audio", {"link"})

    def test_what_a_file_cannot_go_with_is_refused_at_the_door(self) -> None:
        assert "caption" in WhatsAppCloud.refuse(self.outbound(attachments=(attachment("audio/ogg"),)))["text"]
        both = self.outbound(attachments=(attachment("image/png"),), options={"template": {"name": "x"}})
        assert "attachments" in WhatsAppCloud.refuse(both)["options.template"]

    async def test_a_template_goes_as_it_is(self, server: Server, http: HttpClient) -> None:
        template = {"name": "order_sent", "language": {"code": "es"}, "components": []}
        _, asked = await self.sent(server, http, text="", options={"template": template})
        assert (asked["type"], asked["template"]) == ("template", template)
        assert "text" not in asked

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (130429, Throttled),
            (131056, Throttled),
            (80007, Throttled),
            (131047, NotAllowedNow),
            (131049, NotAllowedNow),
            (131026, RecipientRefused),
            (131050, RecipientRefused),
            (132001, ContentRefused),
            (131051, ContentRefused),
            (100, ContentRefused),
            (190, Misconfigured),
            (131042, Misconfigured),
            (131016, Transient),
            (2, Transient),
        ],
    )
    @pytest.mark.parametrize("http_status", [400, 500])
    async def test_a_refusal_is_classed_by_its_code_whatever_the_status(
        self, code: int, expected: type[SendError], http_status: int, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(http_status, code, details="Some details")))
        assert type(error) is expected
        assert error.code == str(code)
        assert "Some details" in error.detail

    async def test_the_wait_is_told_in_minutes_in_a_header(self, server: Server, http: HttpClient) -> None:
        usage = {"1234": [{"type": "whatsapp", "call_count": 100, "estimated_time_to_regain_access": 19}]}
        header = f"X-Business-Use-Case-Usage: {json.dumps(usage)}"
        error = await self.failed(server, http, answers(no(400, 80007, "limit", "", header)))
        assert isinstance(error, Throttled)
        assert error.retry_after == 19 * 60

    async def test_a_throttle_without_a_wait_has_that_of_the_table(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(400, 131056)))
        assert isinstance(error, Throttled)
        assert error.retry_after == 6

    def test_what_whatsapp_would_refuse_is_refused_at_the_door(self) -> None:
        image = {"image_url": "https://shop.example/1.jpg"}
        assert WhatsAppCloud.refuse(self.outbound(text="x" * 4096)) == {}
        assert "4,096" in WhatsAppCloud.refuse(self.outbound(text="x" * 4097))["text"]
        assert "1,024" in WhatsAppCloud.refuse(self.outbound(text="x" * 1025, options=image))["text"]
        assert WhatsAppCloud.refuse(self.outbound(text="", options=image)) == {}
        assert "options.template" in WhatsAppCloud.refuse(self.outbound(options={**image, "template": {"name": "x"}}))
        assert "options.template" in WhatsAppCloud.refuse(self.outbound(options={"template": "order_sent"}))

    @pytest.mark.parametrize("number", ["+56912345678", "1/../2", "abc", "1" * 21])
    def test_a_number_that_is_no_id_is_refused(self, number: str) -> None:
        with pytest.raises(InvalidOption, match="phone_number_id"):
            WhatsAppCloud.check({**self.settings, "phone_number_id": number})

    @pytest.mark.parametrize(
        ("word", "kind"),
        [
            ("sent", ReceiptKind.SENT),
            ("delivered", ReceiptKind.DELIVERED),
            ("read", ReceiptKind.READ),
            ("played", ReceiptKind.READ),
            ("failed", ReceiptKind.UNDELIVERED),
            ("something new", ReceiptKind.INFO),
        ],
    )
    def test_a_status_becomes_a_receipt_with_our_id(self, word: str, kind: ReceiptKind, http: HttpClient) -> None:
        request = signed(report(status(word)))
        provider = self.made(http)
        provider.verify(request)
        (receipt,) = provider.parse(request)
        assert (receipt.kind, receipt.provider_message_id, receipt.message_id) == (kind, WAMID, OUR_ID)
        assert receipt.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    def test_a_failure_says_why_in_words_for_people(self, http: HttpClient) -> None:
        errors = [{"code": 131026, "title": "Message undeliverable", "error_data": {"details": "x"}}]
        (receipt,) = self.made(http).parse(signed(report(status("failed", errors=errors))))
        assert receipt.code == "131026"
        assert "perhaps this person has no WhatsApp" in receipt.detail

    def test_one_report_tells_many_statuses_each_with_an_event_of_its_own(self, http: HttpClient) -> None:
        words = ("sent", "delivered", "read")
        found = self.made(http).parse(signed(report(*(status(word) for word in words))))
        assert len({receipt.event_id for receipt in found}) == 3

    @pytest.mark.parametrize(
        "odd",
        [
            {"id": 7},
            {"id": "wamid."},
            {"status": None},
            {"timestamp": "soon"},
            {"timestamp": "9" * 30},
            {"errors": "x"},
        ],
    )
    def test_a_status_that_is_garbled_spoils_no_other(self, odd: dict[str, Any], http: HttpClient) -> None:
        found = self.made(http).parse(signed(report({**status("read"), **odd}, status("delivered"))))
        assert found[-1].kind is ReceiptKind.DELIVERED

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"entry":7}', b"\xff"])
    def test_what_is_no_report_is_unreadable(self, body: bytes, http: HttpClient) -> None:
        with pytest.raises(Unreadable):
            self.made(http).parse(signed(body))

    def test_a_report_of_another_kind_tells_nothing(self, http: HttpClient) -> None:
        body = b'{"entry":[{"changes":[{"value":{"messages":[{"from":"1"}]}},{"value":7},7]},{"changes":7}]}'
        assert self.made(http).parse(signed(body)) == []

    @pytest.mark.parametrize("header", ["", "sha256=", "sha256=" + "0" * 64, "sha1=abc", "sha256=é"])
    def test_what_is_not_signed_by_the_app_is_forged(self, header: str, http: HttpClient) -> None:
        request = InboundRequest("POST", "https://x/", {"x-hub-signature-256": header}, {}, report(status("read")))
        with pytest.raises(Forged):
            self.made(http).verify(request)

    def test_without_a_secret_nothing_is_believed(self, http: HttpClient) -> None:
        with pytest.raises(Forged, match="app_secret"):
            self.made(http, app_secret="").verify(signed(report(status("read")), ""))

    def test_the_handshake_says_the_challenge_back(self, http: HttpClient) -> None:
        request = handshake(mode="subscribe", verify_token=WORD, challenge="1158201444")
        assert self.made(http).greet(request) == b"1158201444"
        assert self.made(http).greet(signed(report())) is None

    @pytest.mark.parametrize("query", [{}, {"mode": "subscribe", "verify_token": "another"}, {"verify_token": WORD}])
    def test_a_handshake_with_another_word_is_forged(self, query: dict[str, str], http: HttpClient) -> None:
        with pytest.raises(Forged):
            self.made(http).greet(handshake(**query))

    def test_each_code_has_words_for_people(self) -> None:
        assert all(len(code.text) > 10 for _, code in CODES.items())
