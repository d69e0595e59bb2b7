"""APNs: what is asked for, what its reasons mean, and the token that proves who asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from channels.apns import CODES, Apns
from channels.apple_login import Login
from channels.base import (
    ContentRefused,
    InvalidOption,
    Misconfigured,
    NotSent,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from tests.channels.contract import MESSAGE_ID
from tests.channels.http2_contract import Http2Contract
from tests.channels.http2_peer import Answer, Request, Vendor, answers, in_turn
from tests.channels.wire import Server

KEY = ec.generate_private_key(ec.SECP256R1())
AT = datetime(2030, 1, 31, 12, tzinfo=UTC)
TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"


def pem(key: Any = KEY) -> str:
    """A key as Apple's developer site gives it."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def no(status: int, reason: str, **more: Any) -> Answer:
    """A refusal as Apple writes it."""
    return Answer.of(status, json.dumps({"reason": reason} | more).encode())


#: Status, reason -> what it is.
REFUSALS: list[tuple[int, str, type[SendError]]] = [
    (400, "BadCollapseId", ContentRefused),
    (400, "BadDeviceToken", RecipientRefused),
    (400, "BadExpirationDate", ContentRefused),
    (400, "BadMessageId", ContentRefused),
    (400, "BadPriority", ContentRefused),
    (400, "BadTopic", Misconfigured),
    (400, "DeviceTokenNotForTopic", RecipientRefused),
    (400, "DuplicateHeaders", ContentRefused),
    (400, "IdleTimeout", NotSent),
    (400, "InvalidPushType", ContentRefused),
    (400, "MissingDeviceToken", ContentRefused),
    (400, "MissingTopic", Misconfigured),
    (400, "PayloadEmpty", ContentRefused),
    (400, "TopicDisallowed", Misconfigured),
    (403, "BadCertificate", Misconfigured),
    (403, "BadCertificateEnvironment", Misconfigured),
    (403, "BadEnvironmentKeyInToken", Misconfigured),
    (403, "BadEnvironmentKeyIdInToken", Misconfigured),
    (403, "ExpiredProviderToken", NotSent),
    (403, "Forbidden", Misconfigured),
    (403, "InvalidProviderToken", Misconfigured),
    (403, "MissingProviderToken", Misconfigured),
    (403, "UnrelatedKeyIdInToken", Misconfigured),
    (404, "BadPath", ContentRefused),
    (405, "MethodNotAllowed", ContentRefused),
    (410, "ExpiredToken", RecipientRefused),
    (410, "Unregistered", RecipientRefused),
    (413, "PayloadTooLarge", ContentRefused),
    (429, "TooManyProviderTokenUpdates", Throttled),
    (429, "TooManyRequests", Throttled),
    (500, "InternalServerError", Transient),
    (503, "ServiceUnavailable", Transient),
    (503, "Shutdown", NotSent),
]


class TestApns(Http2Contract):
    provider = Apns
    channel = "push"
    to = TOKEN
    settings = {"key": pem(), "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "topic": "com.example.shop"}
    accepted = Answer.of(200, apns_id=MESSAGE_ID)
    provider_message_id = MESSAGE_ID

    async def sent(self, server: Server, **changes: Any) -> tuple[Mapping[str, str], dict[str, Any]]:
        """Headers and payload of the request."""
        vendor = server.script = answers(self.accepted)
        async with self.at(server.url) as provider:
            await provider.send(self.outbound(**changes))
        (request,) = vendor.requests
        return request.headers, json.loads(request.body)

    async def test_a_text_goes_with_its_title_to_the_devices_address(self, server: Server) -> None:
        headers, payload = await self.sent(server, text="¡Hola! 👋", subject="Pedido 7", at=AT)
        assert headers[":method"] == "POST"
        assert headers[":path"] == f"/3/device/{TOKEN}"
        named = {name: value for name, value in headers.items() if name.startswith("apns-")}
        assert named == {
            "apns-id": MESSAGE_ID,
            "apns-topic": "com.example.shop",
            "apns-push-type": "alert",
            "apns-expiration": str(int(AT.timestamp()) + 4 * 3600),
        }
        assert payload == {"aps": {"alert": {"title": "Pedido 7", "body": "¡Hola! 👋"}}}

    async def test_options_become_apples_words(self, server: Server) -> None:
        options = {
            "badge": 0,
            "sound": "bell.caf",
            "mutable_content": True,
            "content_available": True,
            "category": "ORDER",
            "thread_id": "orders",
            "data": {"order": {"id": 7}, "ñ": None},
            "collapse_key": "order-7",
            "priority": "normal",
            "ttl": 3600,
        }
        headers, payload = await self.sent(server, options=options, at=AT)
        assert headers["apns-collapse-id"] == "order-7"
        assert headers["apns-priority"] == "5"
        assert headers["apns-expiration"] == str(int(AT.timestamp()) + 3600)
        assert payload == {
            "aps": {
                "alert": {"body": "Your order is on its way."},
                "badge": 0,
                "sound": "bell.caf",
                "mutable-content": 1,
                "content-available": 1,
                "category": "ORDER",
                "thread-id": "orders",
            },
            "order": {"id": 7},
            "ñ": None,
        }

    @pytest.mark.parametrize("options", [{"data": {"sync": "orders"}}, {"content_available": True}])
    async def test_what_shows_nothing_only_wakes_the_app(self, options: dict[str, Any], server: Server) -> None:
        outbound = {"text": "", "options": options | {"priority": "high"}}
        assert Apns.refuse(self.outbound(**outbound)) == {}
        headers, payload = await self.sent(server, **outbound)
        assert (headers["apns-push-type"], headers["apns-priority"]) == ("background", "5")
        assert payload == {"aps": {"content-available": 1}} | options.get("data", {})

    @pytest.mark.parametrize("options", [{"badge": 0}, {"badge": 3}, {"sound": "default"}])
    async def test_a_badge_or_a_sound_needs_no_text(self, options: dict[str, Any], server: Server) -> None:
        assert Apns.refuse(self.outbound(text="", options=options)) == {}
        headers, payload = await self.sent(server, text="", options=options)
        assert (headers["apns-push-type"], payload) == ("alert", {"aps": options})

    async def test_what_must_not_wait_is_tried_once(self, server: Server) -> None:
        headers, _ = await self.sent(server, options={"ttl": 0})
        assert headers["apns-expiration"] == "0"

    @pytest.mark.parametrize(("status", "reason", "expected"), REFUSALS)
    async def test_a_refusal_is_classed_by_its_reason(
        self, status: int, reason: str, expected: type[SendError], server: Server
    ) -> None:
        error = await self.failed(server, answers(no(status, reason)))
        assert (type(error), error.code, error.unmapped) == (expected, reason, False)
        assert getattr(error, "suppress", False) is (status == 410)

    def test_each_reason_is_tried_and_has_words_for_people(self) -> None:
        assert {reason for _, reason, _ in REFUSALS} == {code for code, _ in CODES.items()}
        assert all(len(code.text) > 15 for _, code in CODES.items())

    async def test_a_reason_that_nobody_knows_is_classed_by_its_status_and_counted(self, server: Server) -> None:
        error = await self.failed(server, answers(no(403, "SomethingNew")))
        assert (type(error), error.code, error.unmapped) == (Misconfigured, "SomethingNew", True)

    async def test_a_device_that_has_enough_holds_up_nobody_else(self, server: Server) -> None:
        error = await self.failed(server, answers(no(429, "TooManyRequests")))
        assert isinstance(error, Throttled)
        assert (error.scope, error.retry_after) == (Scope.RECIPIENT, None)

    async def test_too_many_tokens_rest_the_account_for_as_long_as_one_holds_at_least(self, server: Server) -> None:
        error = await self.failed(server, answers(no(429, "TooManyProviderTokenUpdates")))
        assert isinstance(error, Throttled)
        assert (error.scope, error.retry_after) == (Scope.ACCOUNT, 1200)

    @pytest.mark.parametrize(
        ("registered_after", "timestamp", "suppress"),
        [(None, 0, True), (-1, 0, True), (0, 0, True), (1, 0, False), (1, None, True), (1, "soon", True)],
    )
    async def test_a_token_that_was_registered_again_is_written_to_again(
        self, registered_after: int | None, timestamp: Any, suppress: bool, server: Server
    ) -> None:
        gone = int(AT.timestamp())
        told = {} if timestamp is None else {"timestamp": timestamp or gone * 1000}
        options = {} if registered_after is None else {"registered_at": gone + registered_after}
        server.script = answers(no(410, "Unregistered", **told))
        async with self.at(server.url) as provider:
            with pytest.raises(RecipientRefused) as caught:
                await provider.send(self.outbound(options=options))
        assert caught.value.suppress is suppress

    @pytest.mark.parametrize(("reason", "connections"), [("Shutdown", 2), ("IdleTimeout", 2), ("BadTopic", 1)])
    async def test_after_the_end_of_a_connection_another_one_is_opened(
        self, reason: str, connections: int, server: Server
    ) -> None:
        server.script = in_turn(no(400, reason), self.accepted)
        async with self.at(server.url) as provider:
            with pytest.raises(SendError):
                await provider.send(self.outbound())
            await provider.send(self.outbound())
        assert server.connections == connections

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": "", "html": "<b>x</b>"}, "text"),
            ({"text": "", "options": {"data": {}}}, "text"),
            ({"text": "", "options": {"content_available": False}}, "text"),
            ({"text": "", "options": {"category": "x"}}, "text"),
            ({"text": "x" * 4071}, "text"),
            ({"text": "ñ" * 2036}, "text"),
            ({"to": "x" * 64}, "to"),
            ({"to": TOKEN[1:]}, "to"),
            ({"to": f"{TOKEN}/../../x"}, "to"),
            ({"options": {"data": {"aps": {}}}}, "options.data"),
            ({"options": {"data": {"x": "\ud800"}}}, "options.data"),
            ({"options": {"data": {"x": float("nan")}}}, "options.data"),
            ({"options": {"badge": -1}}, "options.badge"),
            ({"options": {"badge": True}}, "options.badge"),
            ({"options": {"sound": {"critical": 1}}}, "options.sound"),
            ({"options": {"mutable_content": 1}}, "options.mutable_content"),
            ({"options": {"collapse_key": "x" * 65}}, "options.collapse_key"),
            ({"options": {"collapse_key": "a\nb"}}, "options.collapse_key"),
            ({"options": {"priority": "urgent"}}, "options.priority"),
            ({"options": {"ttl": 2_592_001}}, "options.ttl"),
            ({"options": {"registered_at": "2030-01-31"}}, "options.registered_at"),
        ],
    )
    def test_what_apple_would_refuse_is_refused_at_the_door(self, changes: dict[str, Any], field: str) -> None:
        assert set(Apns.refuse(self.outbound(**changes))) == {field}

    async def test_what_just_fits_passes(self, server: Server) -> None:
        text = "x" * (4096 - len('{"aps":{"alert":{"body":""}}}'))
        assert Apns.refuse(self.outbound(text=text)) == {}
        vendor = server.script = answers(self.accepted)
        async with self.at(server.url) as provider:
            await provider.send(self.outbound(text=text))
        assert len(vendor.requests[0].body) == 4096

    async def test_an_old_row_whose_recipient_is_no_token_reaches_nobody(self, server: Server) -> None:
        async with self.at(server.url) as provider:
            with pytest.raises(RecipientRefused):
                await provider.send(self.outbound(to="../x"))
        assert server.connections == 0

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("key", "secret-key-of-ours"),
            ("key", pem(ec.generate_private_key(ec.SECP384R1()))),
            ("key_id", "abc"),
            ("team_id", "DEF123GHIJK"),
            ("topic", "com.example.shop\n"),
        ],
    )
    def test_what_cannot_be_is_refused_where_the_account_is_set_up(self, name: str, value: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Apns.check({**self.settings, name: value})
        assert caught.value.name == name
        assert value not in str(caught.value)


def login(key: Any = KEY) -> Login:
    """As another process makes it of the same account."""
    return Login(pem(key), "ABC123DEFG", "DEF123GHIJ")


def test_apple_can_check_who_signed() -> None:
    token = login().token(AT)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "ABC123DEFG"}
    claims = jwt.decode(token, KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False})
    assert set(claims) == {"iss", "iat"}
    assert claims["iss"] == "DEF123GHIJ"


def test_all_workers_arrive_at_one_token_and_change_it_together() -> None:
    one, other = login(), login()
    seen = {}
    for second in range(0, 2 * 3600, 60):
        at = AT + timedelta(seconds=second)
        assert one.token(at) == other.token(at)
        seen.setdefault(one.token(at), []).append(at.timestamp())
    assert len(seen) == 3
    changes = [min(used) for used in seen.values()]
    assert {later - earlier for earlier, later in pairwise(changes)} == {2400}


def test_a_token_is_never_too_new_or_too_old_for_a_clock_that_is_somewhat_wrong() -> None:
    ages = []
    for second in range(0, 2 * 3600, 7):
        at = AT + timedelta(seconds=second)
        claims = jwt.decode(login().token(at), KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False})
        ages.append(at.timestamp() - claims["iat"])
    assert min(ages) >= 600
    assert max(ages) < 3000


async def test_the_token_is_that_of_the_databases_time(server: Server) -> None:
    requests: list[Request] = []

    async def keep(peer: Any, request: Request) -> None:
        requests.append(request)
        await peer.answer(request, TestApns.accepted)

    server.script = Vendor(keep)
    provider = TestApns.made(base_url=server.url)
    await provider.send(TestApns.outbound(at=AT))
    await provider.close()
    assert requests[0].headers["authorization"] == f"bearer {login().token(AT)}"
