"""Twilio's Messages resource: what is asked for, what its codes mean, and whose callbacks are believed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from channels.base import (
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotAllowedNow,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from channels.twilio import Twilio
from tests.channels.contract import MESSAGE_ID, attachment
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

SID = "SM" + "0123456789abcdef" * 2
ACCOUNT = "AC" + "0" * 32
TOKEN = "auth-token-of-the-account"
URL = "https://chaski.example/receipts/7f1d?message=" + MESSAGE_ID


class TestTwilio(HttpContract):
    provider = Twilio
    channel = "sms"
    to = "+56912345678"
    settings = {"account_sid": ACCOUNT, "auth_token": TOKEN, "from_number": "+15005550006"}
    accepted_status = 201
    accepted_body = json.dumps({"sid": SID, "status": "queued", "error_code": None}).encode()
    provider_message_id = SID

    async def asked(self, server: Server, http: HttpClient, **changes: Any) -> dict[str, list[str]]:
        """The form that a message becomes."""
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        return parse_qs(server.requests[-1].partition(b"\r\n\r\n")[2].decode())

    async def test_the_request_is_what_the_messages_resource_documents(self, server: Server, http: HttpClient) -> None:
        form = await self.asked(server, http, text="¡Hola! + & =", receipts_url="https://chaski.example/receipts/7f1d")
        assert form == {
            "To": ["+56912345678"],
            "From": ["+15005550006"],
            "Body": ["¡Hola! + & ="],
            "StatusCallback": [URL],
        }
        head = server.requests[-1].decode()
        assert head.startswith(f"POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1\r\n")
        assert "Authorization: Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDphdXRo" in head

    async def test_a_messaging_service_takes_the_place_of_the_sender(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        service = self.made(http, base_url=server.url, from_number="", messaging_service_sid="MG1")
        await service.send(self.outbound())
        assert b"MessagingServiceSid=MG1" in server.requests[0]
        assert b"From=" not in server.requests[0]

    async def test_options_become_fields(self, server: Server, http: HttpClient) -> None:
        urls = ["https://shop.example/1.jpg", "https://shop.example/2.jpg"]
        options = {
            "media_url": urls,
            "validity_seconds": 600,
            "content_sid": "HX" + "a" * 32,
            "content_variables": "{}",
        }
        form = await self.asked(server, http, text="", options=options)
        assert form["MediaUrl"] == urls
        assert (form["ValidityPeriod"], form["ContentVariables"]) == (["600"], ["{}"])
        assert "Body" not in form

    async def test_attachments_go_by_their_urls(self, server: Server, http: HttpClient) -> None:
        pictures = (attachment("image/png", name="1.png"), attachment("image/jpeg", name="2.jpg"))
        form = await self.asked(server, http, text="", attachments=pictures)
        assert form["MediaUrl"] == [each.url for each in pictures]
        refused = Twilio.refuse(
            self.outbound(attachments=pictures, options={"media_url": "https://shop.example/1.jpg"})
        )
        assert "attachments" in refused["options.media_url"]

    @pytest.mark.parametrize(
        "options",
        [
            {"media_url": 5},
            {"media_url": []},
            {"media_url": ["https://shop.example/1.jpg"] * 11},
            {"media_url": [None]},
            {"validity_seconds": "600"},
            {"validity_seconds": 0},
            {"validity_seconds": True},
            {"content_sid": "HX1"},
            {"content_variables": {"1": "x"}},
            {"content_variables": "\ud800"},
        ],
    )
    async def test_an_option_of_the_wrong_kind_is_refused_at_the_door_and_never_in_doubt(
        self, options: dict[str, Any]
    ) -> None:
        assert f"options.{next(iter(options))}" in Twilio.refuse(self.outbound(options=options))
        with pytest.raises(ContentRefused):
            await self.made().send(self.outbound(options=options))

    def test_what_twilio_would_refuse_is_refused_at_the_door(self) -> None:
        assert Twilio.refuse(self.outbound(text="x" * 1600)) == {}
        assert "1600" in Twilio.refuse(self.outbound(text="x" * 1601))["text"]
        assert "HTML" in Twilio.refuse(self.outbound(text="", html="<p>x</p>"))["text"]

    @pytest.mark.parametrize("senders", [{}, {"from_number": "+1", "messaging_service_sid": "MG1"}])
    def test_an_account_has_one_kind_of_sender(self, senders: dict[str, str]) -> None:
        with pytest.raises(InvalidOption, match="from_number"):
            Twilio.check({"account_sid": ACCOUNT, "auth_token": TOKEN, **senders})

    @pytest.mark.parametrize(
        ("http_status", "code", "expected"),
        [
            (400, 21211, RecipientRefused),
            (400, 21610, RecipientRefused),
            (400, 21614, RecipientRefused),
            (400, 21617, ContentRefused),
            (400, 21606, Misconfigured),
            (400, 21408, Misconfigured),
            (400, 21611, Throttled),
            (400, 63016, NotAllowedNow),
            (401, 20003, Misconfigured),
            (404, 20404, Misconfigured),
            (429, 20429, Throttled),
            (503, 20503, Transient),
            (400, 99999, ContentRefused),
            (500, 99999, Transient),
        ],
    )
    async def test_a_refusal_is_classed_by_twilios_code(
        self, http_status: int, code: int, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        body = json.dumps({"code": code, "message": "No.", "status": http_status}).encode()
        error = await self.failed(server, http, answers(answer(http_status, body)))
        assert (type(error), error.code) == (expected, str(code))

    @pytest.mark.parametrize(("code", "suppress"), [(21610, True), (21211, False), (21614, False)])
    async def test_only_an_opt_out_suppresses_the_recipient(
        self, code: int, suppress: bool, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(400, json.dumps({"code": code}).encode())))
        assert isinstance(error, RecipientRefused)
        assert error.suppress is suppress

    async def test_the_token_is_in_no_error(self, server: Server, http: HttpClient) -> None:
        body = json.dumps({"code": 20003, "message": f"Authenticate with {TOKEN}"}).encode()
        error = await self.failed(server, http, answers(answer(401, body)))
        assert error.detail == "Authenticate with [secret]"

    @pytest.mark.parametrize("body", [{"sid": None}, {"sid": "SM1"}, {"sid": SID + "x"}, {"status": "queued"}])
    async def test_a_yes_without_a_sid_is_in_doubt(
        self, body: dict[str, Any], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(201, json.dumps(body).encode())))
        assert type(error) is InDoubt
