"""Twilio's Messages resource: what is asked for, what its codes mean, and whose callbacks are believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest

from channels.base import (
    ContentRefused,
    Forged,
    InboundRequest,
    InDoubt,
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
from channels.twilio import Twilio, signature
from tests.channels.contract import MESSAGE_ID, HttpContract
from tests.channels.wire import Server, answer, answers

SID = "SM" + "0123456789abcdef" * 2
ACCOUNT = "AC" + "0" * 32
TOKEN = "auth-token-of-the-account"
URL = "https://chaski.example/receipts/7f1d?message=" + MESSAGE_ID

#: What Twilio's own libraries and its security page check their validators with.
VECTORS = [
    (
        "1c892n40nd03kdnc0112slzkl3091j20",
        "http://www.postbin.org/1ed898x",
        "AccountSid=AC9a9f9392lad99kla0sklakjs90j092j3&ApiVersion=2010-04-01&CallSid=CAd800bb12c0426a7ea4230e492fef2a4f"
        "&CallStatus=ringing&Called=%2B15306384866&CalledCity=OAKLAND&CalledCountry=US&CalledState=CA&CalledZip=94612"
        "&Caller=%2B15306666666&CallerCity=SOUTH+LAKE+TAHOE&CallerCountry=US&CallerName=CA+Wireless+Call&CallerState=CA"
        "&CallerZip=89449&Direction=inbound&From=%2B15306666666&FromCity=SOUTH+LAKE+TAHOE&FromCountry=US&FromState=CA"
        "&FromZip=89449&To=%2B15306384866&ToCity=OAKLAND&ToCountry=US&ToState=CA&ToZip=94612",
        "fF+xx6dTinOaCdZ0aIeNkHr/ZAA=",
    ),
    (
        "12345",
        "https://mycompany.com/myapp.php?foo=1&bar=2",
        "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212",
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    ),
]


def receipt(
    body: str, url: str = URL, signed_url: str = "", token: str = TOKEN, method: str = "POST"
) -> InboundRequest:
    """A callback as Twilio posts it, signed for ``signed_url``."""
    signed = signature(token, signed_url or url, parse_qsl(body, keep_blank_values=True)).decode()
    query = {name: values[-1] for name, values in parse_qs(url.partition("?")[2]).items()}
    return InboundRequest(method, url, {"x-twilio-signature": signed}, query, body.encode())


def status(word: str, **more: str) -> str:
    """The form of a status callback."""
    return urlencode({"MessageSid": SID, "MessageStatus": word, "To": "+56912345678", "AccountSid": ACCOUNT, **more})


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


class TestReceipts:
    twilio = TestTwilio.made()

    @pytest.mark.parametrize(("token", "url", "body", "expected"), VECTORS)
    def test_the_signature_is_the_one_that_twilio_publishes(
        self, token: str, url: str, body: str, expected: str
    ) -> None:
        account = TestTwilio.made(auth_token=token)
        account.verify(InboundRequest("POST", url, {"x-twilio-signature": expected}, {}, body.encode()))
        with pytest.raises(Forged):
            account.verify(InboundRequest("POST", url, {"x-twilio-signature": expected}, {}, body.encode() + b"&A=1"))

    def test_a_name_that_comes_twice_is_signed_with_both_values(self) -> None:
        self.twilio.verify(receipt("B=2&A=2&A=1&A=2&C="))

    @pytest.mark.parametrize(
        ("seen", "signed"),
        [
            ("https://chaski.example/r", "https://chaski.example:443/r"),
            ("https://chaski.example:443/r", "https://chaski.example/r"),
            ("http://chaski.example/r", "http://chaski.example:80/r"),
            ("https://chaski.example:8443/r", "https://chaski.example:8443/r"),
            ("https://chaski.example:8443/r", "https://chaski.example/r"),
            ("https://[2001:db8::1]/r", "https://[2001:db8::1]:443/r"),
        ],
    )
    def test_a_port_may_come_and_go_on_the_way(self, seen: str, signed: str) -> None:
        self.twilio.verify(receipt(status("sent"), seen, signed))

    @pytest.mark.parametrize(
        "request_",
        [
            receipt(status("sent"), token="another account's"),
            receipt(status("sent"), signed_url=URL + "0"),
            receipt(status("sent"), URL, "https://chaski.example:8443/receipts/7f1d?message=" + MESSAGE_ID),
            receipt(status("sent"), URL, URL.replace("https:", "http:")),
            receipt(status("sent"), URL, URL.replace("chaski.example", "evil.example")),
            InboundRequest("POST", URL, {}, {}, status("sent").encode()),
            InboundRequest("POST", URL, {"x-twilio-signature": ""}, {}, status("sent").encode()),
            InboundRequest("POST", URL, {"x-twilio-signature": "\udcff\u20ac"}, {}, status("sent").encode()),
            InboundRequest("POST", URL, receipt("").headers, {}, b"\xff\xfe"),
            InboundRequest("GET", URL, receipt(status("sent")).headers, {}, b""),
        ],
    )
    def test_what_twilio_did_not_sign_is_forged(self, request_: InboundRequest) -> None:
        with pytest.raises(Forged):
            self.twilio.verify(request_)

    def test_a_body_that_was_changed_on_the_way_is_forged(self) -> None:
        good = receipt(status("failed"))
        changed = InboundRequest("POST", good.url, good.headers, good.query, status("delivered").encode())
        with pytest.raises(Forged):
            self.twilio.verify(changed)

    @pytest.mark.parametrize(
        ("word", "kind"),
        [
            ("queued", ReceiptKind.INFO),
            ("sending", ReceiptKind.INFO),
            ("sent", ReceiptKind.SENT),
            ("delivered", ReceiptKind.DELIVERED),
            ("read", ReceiptKind.READ),
            ("undelivered", ReceiptKind.UNDELIVERED),
            ("failed", ReceiptKind.UNDELIVERED),
            ("canceled", ReceiptKind.UNDELIVERED),
            ("partially_delivered", ReceiptKind.INFO),
        ],
    )
    def test_a_status_becomes_a_receipt(self, word: str, kind: ReceiptKind) -> None:
        [found] = self.twilio.parse(receipt(status(word)))
        assert (found.kind, found.provider_message_id, found.message_id) == (kind, SID, MESSAGE_ID)

    def test_a_failure_keeps_its_code(self) -> None:
        [found] = self.twilio.parse(receipt(status("undelivered", ErrorCode="30003")))
        assert (found.code, found.detail) == ("30003", "undelivered")

    def test_a_replay_is_the_same_event_and_another_status_is_not(self) -> None:
        def event(body: str) -> str:
            return self.twilio.parse(receipt(body))[0].event_id

        assert event(status("sent")) == event(status("sent"))
        assert len({event(status("sent")), event(status("delivered")), event(status("failed", ErrorCode="30003"))}) == 3

    @pytest.mark.parametrize(
        "form",
        [
            {},
            {"MessageSid": SID},
            {"MessageStatus": "sent"},
            {"MessageSid": "SM1", "MessageStatus": "sent"},
            {"MessageSid": SID, "MessageStatus": "sent\x00"},
            {"MessageSid": SID, "MessageStatus": "failed", "ErrorCode": "1\x00"},
            {"MessageSid": SID, "MessageStatus": "x" * 41},
        ],
    )
    def test_what_is_no_status_callback_is_unreadable(self, form: Mapping[str, str]) -> None:
        with pytest.raises(Unreadable):
            self.twilio.parse(receipt(urlencode(form)))

    def test_an_id_in_the_url_that_is_none_is_left_out(self) -> None:
        [found] = self.twilio.parse(receipt(status("sent"), "https://chaski.example/r?message=1%00"))
        assert found.message_id == ""

    def test_words_of_the_vendor_fit_the_database(self) -> None:
        [found] = self.twilio.parse(receipt(status("failed", ChannelStatusMessage="\x00" + "x" * 9_999)))
        assert found.detail == "x" * 500
