"""FCM: what is asked for, in the words of each platform, what its codes mean, and an access token that is refused.

No double of FCM that others wrote was found: what is answered here is what its documentation shows.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from channels.base import (
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.fcm import CODES, Fcm
from channels.http import HttpClient
from tests.channels.google_account import Vouching, account_file
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Line, Server, answer, answers, in_turn

TOKEN = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1"
NAME = "projects/shop-7/messages/0:1500415314455276%31bd1c9631bd1c96"
AT = datetime(2030, 1, 31, 12, tzinfo=UTC)


def fcm_error(code: str) -> dict[str, Any]:
    """The detail that holds a code of FCM's own."""
    return {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}


def bad_request(*fields: str) -> dict[str, Any]:
    """The detail that names what is wrong with a request."""
    violations = [{"field": field, "description": "Invalid value"} for field in fields]
    return {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}


def no(status: int, word: str, *details: Any, message: str = "no", headers: tuple[str, ...] = ()) -> bytes:
    """A refusal as Google's APIs write it."""
    told = {"code": status, "message": message, "status": word, "details": list(details)}
    return answer(status, json.dumps({"error": told}).encode(), *headers)


UNAUTHENTICATED = no(401, "UNAUTHENTICATED", {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "X"})
#: Status, Google's word, details -> the class and the code that is kept.
REFUSALS: list[tuple[int, str, list[Any], type[SendError], str]] = [
    (404, "NOT_FOUND", [fcm_error("UNREGISTERED")], RecipientRefused, "UNREGISTERED"),
    (403, "PERMISSION_DENIED", [fcm_error("SENDER_ID_MISMATCH")], RecipientRefused, "SENDER_ID_MISMATCH"),
    (400, "INVALID_ARGUMENT", [fcm_error("INVALID_ARGUMENT")], RecipientRefused, "INVALID_ARGUMENT/token"),
    (400, "INVALID_ARGUMENT", [bad_request("message.data[0].value")], ContentRefused, "INVALID_ARGUMENT"),
    (429, "RESOURCE_EXHAUSTED", [fcm_error("QUOTA_EXCEEDED")], Throttled, "QUOTA_EXCEEDED"),
    (429, "RESOURCE_EXHAUSTED", [], Throttled, "RESOURCE_EXHAUSTED"),
    (503, "UNAVAILABLE", [fcm_error("UNAVAILABLE")], Transient, "UNAVAILABLE"),
    (500, "INTERNAL", [fcm_error("INTERNAL")], Transient, "INTERNAL"),
    (401, "UNAUTHENTICATED", [fcm_error("THIRD_PARTY_AUTH_ERROR")], Misconfigured, "THIRD_PARTY_AUTH_ERROR"),
    (401, "UNAUTHENTICATED", [fcm_error("APNS_AUTH_ERROR")], Misconfigured, "APNS_AUTH_ERROR"),
    (401, "UNAUTHENTICATED", [], Misconfigured, "UNAUTHENTICATED"),
    (403, "PERMISSION_DENIED", [], Misconfigured, "PERMISSION_DENIED"),
]
#: Nothing that a code could be read from, or one that nobody knows: by the status alone.
ODD: list[tuple[int, bytes, type[SendError], str]] = [
    (404, no(404, "NOT_FOUND"), Misconfigured, "NOT_FOUND"),
    (400, no(400, "SOMETHING_NEW", "text", 7), ContentRefused, "SOMETHING_NEW"),
    (400, answer(400, b'{"error":{"details":7}}'), ContentRefused, "http_400"),
    (400, answer(400, b'{"error":"no"}'), ContentRefused, "http_400"),
]


class TestFcm(HttpContract):
    provider = Fcm
    channel = "push"
    to = TOKEN
    settings = {"service_account": account_file()}
    accepted_body = json.dumps({"name": NAME}).encode()
    provider_message_id = NAME

    @pytest.fixture
    def http(self, opened: Callable[[Any], Any]) -> HttpClient:
        """Access tokens come by themselves, so that the wire has the messages alone."""
        client: HttpClient = opened(Vouching())
        return client

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        """Head and message of the request."""
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        asked = json.loads(body)
        assert list(asked) == ["message"]
        return head, asked["message"]

    async def test_a_text_goes_with_its_title_to_the_projects_address(self, server: Server, http: HttpClient) -> None:
        head, message = await self.sent(server, http, text="¡Hola! 👋", subject="Pedido 7")
        assert head.startswith(b"POST /v1/projects/shop-7/messages:send HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer token-1\r\n" in head
        assert b"\r\nContent-Type: application/json\r\n" in head
        assert message == {"token": TOKEN, "notification": {"title": "Pedido 7", "body": "¡Hola! 👋"}}

    async def test_options_are_said_in_the_words_of_each_platform(self, server: Server, http: HttpClient) -> None:
        options = {
            "data": {"order": "7"},
            "image": "https://shop.example/7.png",
            "priority": "high",
            "collapse_key": "order-7",
            "ttl": 3600,
        }
        _, message = await self.sent(server, http, options=options, at=AT)
        assert message == {
            "token": TOKEN,
            "notification": {"body": "Your order is on its way.", "image": "https://shop.example/7.png"},
            "data": {"order": "7"},
            "android": {"priority": "high", "collapse_key": "order-7", "ttl": "3600s"},
            "apns": {
                "headers": {
                    "apns-priority": "10",
                    "apns-collapse-id": "order-7",
                    "apns-expiration": str(int(AT.timestamp()) + 3600),
                }
            },
            "webpush": {"headers": {"Urgency": "high", "TTL": "3600"}},
        }

    async def test_what_must_not_wait_is_tried_once(self, server: Server, http: HttpClient) -> None:
        _, message = await self.sent(server, http, options={"ttl": 0, "priority": "normal"})
        assert message["android"] == {"priority": "normal", "ttl": "0s"}
        assert message["apns"]["headers"] == {"apns-priority": "5", "apns-expiration": "0"}
        assert message["webpush"]["headers"] == {"Urgency": "normal", "TTL": "0"}

    async def test_data_alone_is_no_notification(self, server: Server, http: HttpClient) -> None:
        outbound = {"text": "", "options": {"data": {"sync": "orders"}}}
        assert Fcm.refuse(self.outbound(**outbound)) == {}
        _, message = await self.sent(server, http, **outbound)
        assert message == {"token": TOKEN, "data": {"sync": "orders"}}

    @pytest.mark.parametrize(("status", "word", "details", "expected", "code"), REFUSALS)
    async def test_a_refusal_is_classed_by_fcms_own_code_before_googles(
        self,
        status: int,
        word: str,
        details: list[Any],
        expected: type[SendError],
        code: str,
        server: Server,
        http: HttpClient,
    ) -> None:
        error = await self.failed(server, http, answers(no(status, word, *details, message="It is said so.")))
        assert (type(error), error.code) == (expected, code)
        assert "It is said so." in error.detail
        assert getattr(error, "suppress", False) is (code == "UNREGISTERED")

    def test_each_code_is_tried_and_has_words_for_people(self) -> None:
        assert {code for *_, code in REFUSALS} == {code for code, _ in CODES.items()}
        assert all(len(code.text) > 10 for _, code in CODES.items())

    @pytest.mark.parametrize(("status", "said", "expected", "code"), ODD)
    async def test_without_a_code_that_is_known_the_status_decides(
        self, status: int, said: bytes, expected: type[SendError], code: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(said))
        assert (type(error), error.code) == (expected, code)

    @pytest.mark.parametrize(
        ("details", "expected"),
        [
            ([fcm_error("INVALID_ARGUMENT"), bad_request("message.token")], RecipientRefused),
            ([bad_request("message.token")], RecipientRefused),
            ([fcm_error("INVALID_ARGUMENT"), bad_request("message.android.ttl")], ContentRefused),
            ([bad_request("message.token", "message.data")], ContentRefused),
            ([bad_request()], ContentRefused),
            ([], ContentRefused),
        ],
    )
    async def test_an_invalid_argument_is_the_recipients_fault_only_where_its_token_is_meant(
        self, details: list[Any], expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        assert type(await self.failed(server, http, answers(no(400, "INVALID_ARGUMENT", *details)))) is expected

    @pytest.mark.parametrize(("headers", "wait"), [((), 60), (("Retry-After: 9",), 9), (("Retry-After: 0",), 0)])
    async def test_a_quota_that_is_spent_waits_a_minute_unless_told(
        self, headers: tuple[str, ...], wait: float, server: Server, http: HttpClient
    ) -> None:
        said = no(429, "RESOURCE_EXHAUSTED", fcm_error("QUOTA_EXCEEDED"), headers=headers)
        error = await self.failed(server, http, answers(said))
        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (wait, Scope.ACCOUNT)

    async def test_a_devices_own_quota_holds_up_nobody_else(self, server: Server, http: HttpClient) -> None:
        quota = {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"description": "Device message rate exceeded"}],
        }
        error = await self.failed(server, http, answers(no(429, "RESOURCE_EXHAUSTED", quota)))
        assert isinstance(error, Throttled)
        assert error.scope is Scope.RECIPIENT

    async def test_a_vendor_that_is_away_says_for_how_long(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(503, "UNAVAILABLE", headers=("Retry-After: 30",))))
        assert isinstance(error, Transient)
        assert error.retry_after == 30

    async def test_a_token_that_is_refused_is_renewed_and_the_message_sent_again(
        self, server: Server, http: HttpClient
    ) -> None:
        server.script = in_turn(UNAUTHENTICATED, self.accepted, self.accepted)
        provider = self.at(server.url, http)
        assert (await provider.send(self.outbound())).provider_message_id == NAME
        await provider.send(self.outbound())
        heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in server.requests), strict=True)
        tokens = [head.partition(b"Bearer ")[2].partition(b"\r\n")[0] for head in heads]
        assert tokens == [b"token-1", b"token-2", b"token-2"]
        assert len(set(bodies)) == 1

    async def test_a_new_token_is_tried_once(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(UNAUTHENTICATED))
        assert (type(error), len(server.requests)) == (Misconfigured, 2)

    async def test_both_requests_together_end_in_time(self, server: Server, http: HttpClient) -> None:
        async def slow_to_refuse_and_then_silent(line: Line) -> None:
            await line.request()
            await asyncio.sleep(0.6)
            await line.send(UNAUTHENTICATED)
            await line.silence()

        self.patience, begun = 0.8, time.monotonic()
        error = await self.failed(server, http, slow_to_refuse_and_then_silent)
        assert (type(error), error.code) == (InDoubt, "timeout")
        assert time.monotonic() - begun < 1.2

    async def test_what_a_new_token_cannot_mend_asks_for_none(self, server: Server, http: HttpClient) -> None:
        said = no(401, "UNAUTHENTICATED", fcm_error("THIRD_PARTY_AUTH_ERROR"))
        await self.failed(server, http, answers(said))
        assert len(server.requests) == 1

    async def test_tokens_come_from_where_the_account_says(self, server: Server) -> None:
        server.script = in_turn(answer(200, b'{"access_token":"ya29.x","expires_in":3599}'), self.accepted)
        async with HttpClient() as http:
            provider = self.made(http, base_url=server.url, token_url=f"{server.url}/token")
            await provider.send(self.outbound())
        asked, posted = server.requests
        assert asked.startswith(b"POST /token HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer ya29.x\r\n" in posted

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": "", "html": "<b>x</b>"}, "text"),
            ({"text": "x" * 4090, "subject": "x" * 7}, "text"),
            ({"text": "ñ" * 2048, "options": {"image": "x"}}, "text"),
            ({"text": "x", "options": {"data": {"k": "x" * 4095}}}, "text"),
            ({"options": {"data": {"order": 7}}}, "options.data"),
            ({"options": {"data": ["order"]}}, "options.data"),
            ({"options": {"data": {"from": "x"}}}, "options.data"),
            ({"options": {"data": {"google.id": "x"}}}, "options.data"),
            ({"options": {"collapse_key": "x" * 65}}, "options.collapse_key"),
            ({"options": {"collapse_key": ""}}, "options.collapse_key"),
            ({"options": {"priority": "urgent"}}, "options.priority"),
            ({"options": {"ttl": 2_419_201}}, "options.ttl"),
        ],
    )
    def test_what_fcm_would_refuse_is_refused_at_the_door(self, changes: dict[str, Any], field: str) -> None:
        assert set(Fcm.refuse(self.outbound(**changes))) == {field}

    def test_what_just_fits_passes(self) -> None:
        assert Fcm.refuse(self.outbound(text="x" * 4090, subject="x" * 6)) == {}
        assert Fcm.refuse(self.outbound(options={"collapse_key": "x" * 64, "ttl": 2_419_200})) == {}
        assert Fcm.refuse(self.outbound(options={"data": {"from_whom": "x", "gcms": "x"}})) == {}

    @pytest.mark.parametrize("url", ["oauth2.example/token", "ftp://oauth2.example/"])
    def test_a_token_url_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidOption, match="token_url"):
            Fcm.check({**self.settings, "token_url": url})
