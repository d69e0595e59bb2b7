"""What X posts to an account's address: the handshake, whose reports are believed, and that they move nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from channels.base import Forged, InboundRequest, Unreadable
from channels.http import HttpClient
from channels.x import X

URL = "https://chaski.example/receipts/1"
SECRET = "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw"
SETTINGS = {"consumer_key": "xvz1", "consumer_secret": SECRET, "access_token": "3707", "access_token_secret": "Lsww"}
EVENT = b'{"for_user_id":"2244994945","direct_message_events":[{"type":"message_create","id":"1"}]}'
NO_EVENTS = {
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "a number": b"7",
    "no text": b"\xff",
    "another object": b'{"text":"x"}',
    "a deep list": b"[" * 100_000,
}


def hashed(data: bytes, secret: str = SECRET) -> str:
    return "sha256=" + base64.b64encode(hmac.new(secret.encode(), data, hashlib.sha256).digest()).decode()


def posted(body: bytes, signature: str) -> InboundRequest:
    return InboundRequest("POST", URL, {"x-twitter-webhooks-signature": signature}, {}, body)


def handshake(**query: str) -> InboundRequest:
    return InboundRequest("GET", URL, {}, query, b"")


class TestWhatXPosts:
    x = X(X.check(SETTINGS), HttpClient())

    def test_the_handshake_comes_back_signed(self) -> None:
        assert json.loads(self.x.greet(handshake(crc_token="MGM1MTMy-9ca3_6b=", nonce="x")) or b"") == {
            "response_token": hashed(b"MGM1MTMy-9ca3_6b=")
        }
        assert self.x.greet(posted(EVENT, "")) is None

    @pytest.mark.parametrize(
        "request_", [handshake(), handshake(crc_token=""), handshake(crc_token="x" * 257), handshake(crc_token="é")]
    )
    def test_a_get_that_holds_no_token_is_forged(self, request_: InboundRequest) -> None:
        with pytest.raises(Forged):
            self.x.greet(request_)

    def test_nobody_gets_a_report_signed_by_calling_it_a_token(self) -> None:
        with pytest.raises(Forged):
            self.x.greet(handshake(crc_token=EVENT.decode()))

    def test_a_signed_report_is_believed_as_often_as_it_comes_and_says_the_same(self) -> None:
        request = posted(EVENT, hashed(EVENT))
        self.x.verify(request)
        assert self.x.parse(request) == self.x.parse(request)
        self.x.verify(request)

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "sha256=",
            hashed(EVENT, "another app's"),
            hashed(EVENT + b" "),
            hashed(EVENT).removeprefix("sha256="),
            "\udcff\u20ac",
        ],
    )
    def test_what_x_did_not_sign_is_forged(self, given: str) -> None:
        with pytest.raises(Forged):
            self.x.verify(posted(EVENT, given))

    @pytest.mark.parametrize("body", [b'{"user_event":{"revoke":{}}}', b'{"data":{"event_type":"chat.received"}}'])
    def test_events_of_other_kinds_move_nothing_either(self, body: bytes) -> None:
        assert self.x.parse(posted(body, hashed(body))) == []

    @pytest.mark.parametrize("kind", NO_EVENTS)
    def test_what_is_no_event_is_unreadable(self, kind: str) -> None:
        with pytest.raises(Unreadable):
            self.x.parse(posted(NO_EVENTS[kind], hashed(NO_EVENTS[kind])))
