"""Twilio's status callbacks: whose are believed, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest

from channels.base import (
    Forged,
    InboundRequest,
    ReceiptKind,
    Unreadable,
)
from channels.http import HttpClient
from channels.twilio import Twilio, signature
from tests.channels.contract import MESSAGE_ID

SID = "SM" + "0123456789abcdef" * 2
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
    return urlencode({"MessageSid": SID, "MessageStatus": word, "To": "+56912345678", "AccountSid": "AC1", **more})


def made(auth_token: str = TOKEN) -> Twilio:
    """The receiving side of an account; it gets no way out."""
    settings = {"account_sid": "AC" + "0" * 32, "auth_token": auth_token, "from_number": "+15005550006"}
    return Twilio(Twilio.check(settings), HttpClient())


class TestReceipts:
    twilio = made()

    @pytest.mark.parametrize(("token", "url", "body", "expected"), VECTORS)
    def test_the_signature_is_the_one_that_twilio_publishes(
        self, token: str, url: str, body: str, expected: str
    ) -> None:
        account = made(token)
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
