"""SMS through Vonage: what is asked for, what its statuses mean, and what it reports."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from channels.base import (
    ContentRefused,
    Forged,
    InboundRequest,
    InDoubt,
    Misconfigured,
    ReceiptKind,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.http import HttpClient
from channels.vonage import CODES, DELIVERY_CODES, Vonage, signature
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

SECRET = "secret-that-signs"
OUR_ID = "01a21cdb-6965-70d7-8701-26e453af2fd5"
TOLD = {
    "msisdn": "56912345678",
    "to": "Shop",
    "messageId": "0A0000001234567B",
    "status": "delivered",
    "err-code": "0",
    "message-timestamp": "2026-11-27 12:00:00",
    "client-ref": OUR_ID,
    "timestamp": "1700000000",
    "nonce": "aaaa-bbbb",
}


def part(status: str, **more: str) -> dict[str, str]:
    return {"to": "56912345678", "message-id": "0A0000001234567B", "status": status, **more}


def said(*parts: dict[str, str]) -> bytes:
    return answer(200, json.dumps({"message-count": str(len(parts)), "messages": list(parts)}).encode())


def report(form: str = "form", secret: str = SECRET, **changes: str) -> InboundRequest:
    told = {**TOLD, **changes}
    told["sig"] = signature(secret, told)
    url = "https://chaski.example/receipts/1"
    if form == "get":
        return InboundRequest("GET", url, {}, told, b"")
    if form == "json":
        return InboundRequest("POST", url, {"content-type": "application/json"}, {}, json.dumps(told).encode())
    return InboundRequest("POST", url, {}, {}, urlencode(told).encode())


class TestVonage(HttpContract):
    provider = Vonage
    channel = "sms"
    to = "+56912345678"
    settings = {
        "api_key": "abcd1234",
        "api_secret": "secret-of-the-account",
        "from": "Shop",
        "signature_secret": SECRET,
    }
    accepted_body = json.dumps({"message-count": "1", "messages": [part("0")]}).encode()
    provider_message_id = "0A0000001234567B"

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, list[str]]]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, parse_qs(body.decode())

    async def test_a_text_goes_with_our_id(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="Su pedido", receipts_url="https://chaski.example/receipts/1")
        assert head.startswith(b"POST /sms/json HTTP/1.1\r\n")
        assert asked == {
            "api_key": ["abcd1234"],
            "api_secret": ["secret-of-the-account"],
            "from": ["Shop"],
            "to": ["56912345678"],
            "text": ["Su pedido"],
            "client-ref": [self.outbound().message_id],
            "callback": ["https://chaski.example/receipts/1"],
        }

    async def test_what_gsm_does_not_have_goes_as_unicode(self, server: Server, http: HttpClient) -> None:
        assert (await self.sent(server, http, text="👋"))[1]["type"] == ["unicode"]
        assert "type" not in (await self.sent(server, http, text="¡Año Ñandu! {x} €"))[1]

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("1", Throttled),
            ("4", Misconfigured),
            ("5", Transient),
            ("6", RecipientRefused),
            ("9", Misconfigured),
            ("12", ContentRefused),
            ("77", ContentRefused),
        ],
    )
    async def test_a_no_with_http_200_is_classed_by_its_status(
        self, status: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(said(part(status, **{"error-text": "no"}))))
        assert type(error) is expected
        assert error.code == status

    async def test_a_message_of_which_only_a_part_was_taken_is_perhaps_delivered(
        self, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(said(part("0"), part("1"))))
        assert type(error) is Transient

    @pytest.mark.parametrize("odd", [{}, {"status": "0"}, {"status": "0", "message-id": 7}])
    async def test_an_answer_that_says_neither_is_in_doubt(
        self, odd: dict[str, Any], server: Server, http: HttpClient
    ) -> None:
        body = json.dumps({"messages": [odd]}).encode()
        assert type(await self.failed(server, http, answers(answer(200, body)))) is InDoubt

    def test_what_vonage_would_refuse_is_refused_at_the_door(self) -> None:
        assert Vonage.refuse(self.outbound(text="x" * 1530)) == {}
        assert "1,530" in Vonage.refuse(self.outbound(text="x" * 1531))["text"]
        assert "670" in Vonage.refuse(self.outbound(text="👋" * 671))["text"]
        assert "options.ttl_seconds" in Vonage.refuse(self.outbound(options={"ttl_seconds": 1}))

    @pytest.mark.parametrize("form", ["get", "form", "json"])
    def test_a_receipt_in_any_form_is_one(self, form: str, http: HttpClient) -> None:
        provider, request = self.made(http), report(form)
        provider.verify(request)
        (receipt,) = provider.parse(request)
        assert (receipt.kind, receipt.provider_message_id, receipt.message_id) == (
            ReceiptKind.DELIVERED,
            "0A0000001234567B",
            OUR_ID,
        )
        assert receipt.at == datetime(2026, 11, 27, 12, tzinfo=UTC)

    def test_a_failure_says_why_in_words_for_people(self, http: HttpClient) -> None:
        (receipt,) = self.made(http).parse(report(status="failed", **{"err-code": "9"}))
        assert (receipt.kind, receipt.code, receipt.detail) == (
            ReceiptKind.UNDELIVERED,
            "9",
            "the number does not exist",
        )

    def test_the_signature_is_the_one_that_vonage_documents(self) -> None:
        told = {"a": "1&2=3", "b": "x"}
        assert signature(SECRET, told) == signature(SECRET, {**told, "sig": "whatever"})
        assert signature(SECRET, told) == signature(SECRET, {"a": "1_2_3", "b": "x"})

    @pytest.mark.parametrize("form", ["get", "form", "json"])
    def test_what_is_not_signed_by_the_account_is_forged(self, form: str, http: HttpClient) -> None:
        with pytest.raises(Forged):
            self.made(http).verify(report(form, "another secret"))

    @pytest.mark.parametrize("body", [b"", b"\xff", b"a=1&sig=", b"&" * 200])
    def test_what_is_no_form_is_forged(self, body: bytes, http: HttpClient) -> None:
        with pytest.raises(Forged):
            self.made(http).verify(InboundRequest("POST", "https://x/", {}, {}, body))

    def test_without_a_secret_nothing_is_believed(self, http: HttpClient) -> None:
        with pytest.raises(Forged, match="signature_secret"):
            self.made(http, signature_secret="").verify(report())

    def test_what_names_no_message_is_unreadable(self, http: HttpClient) -> None:
        with pytest.raises(Unreadable):
            self.made(http).parse(report(messageId=""))

    def test_each_code_has_words_for_people(self) -> None:
        assert all(len(code.text) > 10 for _, code in CODES.items())
        assert all(len(text) > 10 for text in DELIVERY_CODES.values())
