"""Web push: what a push service gets, what the browser reads of it, and what the services' codes mean."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import http_ece  # type: ignore[import-untyped]
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from channels.base import (
    ContentRefused,
    InvalidOption,
    Misconfigured,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient, HttpResponse, Reach
from channels.media import MEDIA
from channels.webpush import CODES, WebPush
from tests.channels.contract import MESSAGE_ID
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

MOZILLA = "https://updates.push.services.mozilla.com"
MESSAGE_URL = f"{MOZILLA}/m/gAAAAABm"
BROWSERS_KEY, AUTH = ec.generate_private_key(ec.SECP256R1()), b"sixteen secret b"
VAPID = ec.generate_private_key(ec.SECP256R1())
AT = datetime(2030, 1, 31, 12, 30, tzinfo=UTC)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as browsers write it."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def b64(value: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(value).decode().rstrip("=")


def recipient(endpoint: str = f"{MOZILLA}/wpush/v2/gAAA-_?x=1", key: bytes = b"") -> str:
    """A subscription of the browser's, normalised."""
    keys = {"p256dh": b64(key or point(BROWSERS_KEY)), "auth": b64(AUTH)}
    return MEDIA["webpush"].normalise(json.dumps({"endpoint": endpoint, "keys": keys}))


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """As OpenSSL writes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


RAW = b64(VAPID.private_numbers().private_value.to_bytes(32, "big"))
#: Status and errno -> class, and whether the recipient is suppressed.
MOZILLAS: list[tuple[int, int, type[SendError], bool]] = [
    (400, 101, ContentRefused, False),
    (404, 102, RecipientRefused, True),
    (410, 103, RecipientRefused, True),
    (413, 104, ContentRefused, False),
    (410, 105, RecipientRefused, True),
    (410, 106, RecipientRefused, True),
    (400, 108, RecipientRefused, False),
    (401, 109, Misconfigured, False),
    (400, 110, ContentRefused, False),
    (400, 111, ContentRefused, False),
    (400, 112, ContentRefused, False),
    (400, 113, ContentRefused, False),
    (503, 201, Transient, False),
    (503, 202, Transient, False),
    (502, 900, Transient, False),
    (502, 901, Transient, False),
    (502, 902, Transient, False),
    (502, 903, Transient, False),
    (500, 999, Transient, False),
    (400, 555, ContentRefused, False),
]
#: Status and what is said, by services without such numbers -> class, code, and whether the recipient is suppressed.
OTHERS: list[tuple[int, str, type[SendError], str, bool]] = [
    (404, "", RecipientRefused, "http_404", True),
    (410, "push subscription has unsubscribed or expired.", RecipientRefused, "http_410", True),
    (413, "", ContentRefused, "http_413", False),
    (400, "bad request", ContentRefused, "http_400", False),
    (401, "Unauthorized", Misconfigured, "http_401", False),
    (403, '{"reason":"BadJwtToken"}', Misconfigured, "http_403", False),
    (
        403,
        "the VAPID credentials in the authorization header do not correspond to the credentials used to create the"
        " subscriptions.\n",
        RecipientRefused,
        "other_key",
        False,
    ),
    (400, '{"reason":"VapidPkHashMismatch"}', RecipientRefused, "other_key", False),
    (401, '{"errno":109,"message":"VAPID public key mismatch"}', RecipientRefused, "other_key", False),
    (301, "", RecipientRefused, "http_301", False),
]


class TestWebPush(HttpContract):
    """At a stand-in (``base_url``), as the contract needs it."""

    provider = WebPush
    channel = "webpush"
    to = recipient()
    settings = {"vapid_private_key": RAW, "subject": "mailto:ops@shop.example"}
    accepted_status = 201
    accepted_body = b""
    provider_message_id = MESSAGE_URL
    reads_the_answer = False

    @property
    def accepted(self) -> bytes:
        """The message's address is its id."""
        return answer(201, b"", f"Location: {MESSAGE_URL}")

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[dict[str, str], bytes]:
        """Headers and body of the request."""
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return dict(row.split(": ", 1) for row in head.decode().split("\r\n")[1:]), body

    async def test_the_browser_alone_can_read_what_goes_to_its_endpoint(self, server: Server, http: HttpClient) -> None:
        message = {"text": "¡Hola! 👋", "subject": "Pedido 7", "options": {"data": {"a": "b"}}}
        headers, body = await self.sent(server, http, **message)
        assert server.requests[0].startswith(b"POST /wpush/v2/gAAA-_?x=1 HTTP/1.1\r\n")
        assert (headers["Content-Encoding"], headers["Content-Type"]) == ("aes128gcm", "application/octet-stream")
        plain = http_ece.decrypt(body, private_key=BROWSERS_KEY, auth_secret=AUTH)
        assert json.loads(plain) == {"title": "Pedido 7", "body": "¡Hola! 👋", "id": MESSAGE_ID, "data": {"a": "b"}}
        _, again = await self.sent(server, http)
        assert again[:16] != body[:16]  # the salt: no two messages are encrypted with one key

    async def test_the_account_signs_for_this_push_service(self, server: Server, http: HttpClient) -> None:
        headers, _ = await self.sent(server, http, at=AT)
        scheme, token, key = headers["Authorization"].split(" ")
        assert scheme == "vapid"
        assert key == f"k={b64(point(VAPID))}"
        claims = jwt.decode(
            token.removeprefix("t=").removesuffix(","), VAPID.public_key(), algorithms=["ES256"], audience=MOZILLA
        )
        assert claims["sub"] == "mailto:ops@shop.example"
        assert timedelta(hours=11) <= datetime.fromtimestamp(claims["exp"], UTC) - AT <= timedelta(hours=24)

    async def test_a_signature_is_for_one_service_and_for_a_while(self, server: Server, http: HttpClient) -> None:
        changes: list[dict[str, Any]] = [
            {"at": AT},
            {"at": AT + timedelta(minutes=29)},
            {"at": AT + timedelta(hours=1)},
            {"at": AT, "to": recipient("https://web.push.apple.com/QGuQyavXutnMH")},
        ]
        server.script = answers(self.accepted)
        provider = self.at(server.url, http)
        for each in changes:
            await provider.send(self.outbound(**each))
        signed = [request.partition(b"Authorization: ")[2].partition(b"\r\n")[0] for request in server.requests]
        assert signed[0] == signed[1]
        assert len(set(signed)) == 3

    async def test_options_are_headers(self, server: Server, http: HttpClient) -> None:
        headers, _ = await self.sent(server, http)
        assert headers["TTL"] == "14400"
        assert not {"Urgency", "Topic"} & set(headers)
        headers, _ = await self.sent(server, http, options={"ttl": 0, "urgency": "very-low", "topic": "order-7"})
        assert (headers["TTL"], headers["Urgency"], headers["Topic"]) == ("0", "very-low", "order-7")

    async def test_the_longest_text_fills_what_every_service_takes(self, server: Server, http: HttpClient) -> None:
        around = len(json.dumps({"title": "", "body": "", "id": MESSAGE_ID}, separators=(",", ":")))
        text = "ñ" * ((3993 - around) // 2) + "x" * ((3993 - around) % 2)
        assert WebPush.refuse(self.outbound(text=text)) == {}
        assert set(WebPush.refuse(self.outbound(text=text + "x"))) == {"text"}
        _, body = await self.sent(server, http, text=text)
        assert len(body) == 4096

    async def test_an_answer_without_an_address_is_acceptance(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(201))
        assert (await self.at(server.url, http).send(self.outbound())).provider_message_id == ""

    @pytest.mark.parametrize(("status", "errno", "expected", "suppress"), MOZILLAS)
    async def test_a_refusal_of_mozillas_is_classed_by_its_number(
        self, status: int, errno: int, expected: type[SendError], suppress: bool, server: Server, http: HttpClient
    ) -> None:
        said = {"code": status, "errno": errno, "error": "No", "message": "It is said so."}
        error = await self.failed(server, http, answers(answer(status, json.dumps(said).encode(), "Retry-After: 9")))
        assert (type(error), error.code) == (expected, str(errno))
        assert "It is said so." in error.detail
        assert getattr(error, "suppress", False) is suppress
        assert getattr(error, "retry_after", 9) == 9

    @pytest.mark.parametrize(("status", "said", "expected", "code", "suppress"), OTHERS)
    async def test_a_refusal_of_others_is_classed_by_status_and_words(
        self,
        status: int,
        said: str,
        expected: type[SendError],
        code: str,
        suppress: bool,
        server: Server,
        http: HttpClient,
    ) -> None:
        error = await self.failed(server, http, answers(answer(status, said.encode())))
        assert (type(error), error.code) == (expected, code)
        assert getattr(error, "suppress", False) is suppress

    def test_each_code_is_tried_and_has_words_for_people(self) -> None:
        tried = {str(errno) for _, errno, *_ in MOZILLAS} | {code for *_, code, _ in OTHERS}
        assert {code for code, _ in CODES.items()} <= tried
        assert all(len(code.text) > 10 for _, code in CODES.items())

    async def test_a_throttle_is_the_subscriptions_own(self, server: Server, http: HttpClient) -> None:
        said = answer(429, b'{"code":429,"errno":201,"message":"slow down"}', "Retry-After: 120")
        error = await self.failed(server, http, answers(said))
        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (120, Scope.RECIPIENT)

    async def test_what_is_said_can_be_shown_and_kept(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(answer(400, b"no\x00such\r\n\x1b[31mthing \xff")))
        assert error.detail == "no such   [31mthing \ufffd"

    @pytest.mark.parametrize(
        "to",
        ["nobody", "[" * 2000, recipient(key=b"\x04" + b"\x01" * 64)],
        ids=["a word", "a deep list", "a key off the curve"],
    )
    async def test_what_is_no_subscription_concerns_the_recipient_alone(
        self, to: str, server: Server, http: HttpClient
    ) -> None:
        assert set(WebPush.refuse(self.outbound(to=to))) == {"to"}
        with pytest.raises(RecipientRefused, match="invalid_subscription") as caught:
            await self.at(server.url, http).send(self.outbound(to=to))
        assert not caught.value.suppress
        assert not server.requests

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": "", "html": "<b>x</b>"}, "text"),
            ({"subject": "ñ" * 2000}, "text"),
            ({"options": {"data": {"order": 7}}}, "options.data"),
            ({"options": {"ttl": -1}}, "options.ttl"),
            ({"options": {"urgency": "urgent"}}, "options.urgency"),
            ({"options": {"topic": "x" * 33}}, "options.topic"),
            ({"options": {"topic": "x\r\nX: y"}}, "options.topic"),
        ],
    )
    def test_what_push_services_would_refuse_is_refused_at_the_door(self, changes: dict[str, Any], field: str) -> None:
        assert set(WebPush.refuse(self.outbound(**changes))) == {field}
        assert WebPush.refuse(self.outbound(text="", options={"data": {"order": "7"}})) == {}


async def test_the_endpoint_itself_is_asked_and_only_at_a_public_address() -> None:
    class Asked(HttpClient):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            assert (method, url, more["reach"]) == ("POST", f"{MOZILLA}/wpush/v2/gAAA-_?x=1", Reach.PUBLIC)
            return HttpResponse(201, {}, b"")

    provider = WebPush(WebPush.check(TestWebPush.settings), Asked())
    assert await provider.send(TestWebPush.outbound())


@pytest.mark.parametrize("key", [RAW, RAW + "=", pem(VAPID)], ids=["raw", "padded", "PEM"])
async def test_a_key_may_come_in_either_form(key: str, server: Server, http: HttpClient) -> None:
    server.script = answers(answer(201))
    await TestWebPush.made(http, vapid_private_key=key, base_url=server.url).send(TestWebPush.outbound())
    assert f"k={b64(point(VAPID))}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize(
    "key",
    ["secret-of-the-shop", RAW + RAW, b64(bytes(32)), b64(b"\xff" * 32), pem(ec.generate_private_key(ec.SECP384R1()))],
    ids=["a word", "too long", "zero", "beyond the curve", "another curve"],
)
def test_a_key_that_cannot_sign_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidOption, match="vapid_private_key") as caught:
        WebPush.check({**TestWebPush.settings, "vapid_private_key": key})
    assert key not in str(caught.value)


@pytest.mark.parametrize("subject", ["mailto:ops@shop.example", "https://shop.example/contact"])
def test_a_subject_is_an_address_or_a_page(subject: str) -> None:
    assert WebPush.check({**TestWebPush.settings, "subject": subject})["subject"] == subject


@pytest.mark.parametrize(
    "subject", ["ops@shop.example", "mailto: ops@shop.example", "mailto:<ops@shop.example>", "http://shop.example/"]
)
def test_a_subject_that_a_service_would_refuse_is_refused(subject: str) -> None:
    with pytest.raises(InvalidOption, match="subject"):
        WebPush.check({**TestWebPush.settings, "subject": subject})
