"""Google's access tokens: how they are asked for, one renewal for all who wait, and what a no means for the message."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from channels.base import InvalidOption, Misconfigured, NotSent, SendError, Throttled
from channels.google_login import CODES, Login, ServiceAccount
from channels.http import HttpClient
from tests.channels import wire
from tests.channels.google_account import KEY, TOKEN_URI, account_file
from tests.channels.wire import Script, Server, answer, answers, in_turn

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
AT = datetime(2030, 1, 31, 12, tzinfo=UTC)
PEM_OF_A_CURVE = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
PEM_WITH_PASSWORD = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
NOT_FILES = {
    "nothing": "",
    "a word": "secret-of-the-shop",
    "a list": "[]",
    "a deep list": "[" * 50_000,
    "a path for a project": account_file(project_id="secret-of-the-shop/../other"),
    "a word for a key": account_file(private_key="secret-of-the-shop"),
    "half a character in the key": account_file(private_key="secret-of-the-shop \ud800"),
    "a key of another kind": account_file(private_key=PEM_OF_A_CURVE.decode()),
    "a key with a password": account_file(private_key=PEM_WITH_PASSWORD.decode()),
}


def yes(token: str, **more: Any) -> bytes:
    """Google's answer."""
    return answer(200, json.dumps({"access_token": token, "expires_in": 3599, **more}).encode())


def login(server: Server, http: HttpClient) -> Login:
    """With the token endpoint at ``server``."""
    return Login(ServiceAccount.read(account_file()), SCOPE, f"{server.url}/token", http)


async def failed(server: Server, http: HttpClient, script: Script, seconds: float = 5.0) -> SendError:
    """What asking for a token raises."""
    server.script = script
    with pytest.raises(SendError) as caught:
        await login(server, http).token(AT, seconds)
    return caught.value


async def test_a_signed_assertion_is_exchanged_for_a_token(server: Server, http: HttpClient) -> None:
    server.script = answers(yes("ya29.c.b0A..."))
    assert await login(server, http).token(AT, 5.0) == "ya29.c.b0A..."
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /token HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/x-www-form-urlencoded\r\n" in head
    form = parse_qs(body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    (assertion,) = form["assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": "9f1c3a"}
    claims = jwt.decode(
        assertion,
        KEY.public_key(),
        algorithms=["RS256"],
        audience=TOKEN_URI,
        options={"verify_exp": False, "verify_iat": False},
    )
    at = int(AT.timestamp())
    assert claims == {
        "iss": "chaski@shop-7.iam.gserviceaccount.example",
        "scope": SCOPE,
        "aud": TOKEN_URI,
        "iat": at,
        "exp": at + 3600,
    }


@pytest.mark.parametrize(("expires_in", "asked"), [(3599, 1), (None, 1), (330, 1), (300, 2), (0, 2), ("soon", 1)])
async def test_a_token_is_kept_until_five_minutes_before_its_end(
    expires_in: Any, asked: int, server: Server, http: HttpClient
) -> None:
    server.script = answers(yes("token", expires_in=expires_in))
    account = login(server, http)
    for _ in range(2):
        await account.token(AT, 5.0)
    assert len(server.requests) == asked


async def test_however_many_wait_one_asks(server: Server, http: HttpClient) -> None:
    server.script = in_turn(yes("first"), yes("second"))
    account = login(server, http)
    found = await asyncio.gather(*(account.token(AT, 5.0) for _ in range(50)))
    assert (set(found), len(server.requests)) == ({"first"}, 1)
    found = await asyncio.gather(*(account.token(AT, 5.0, refused="first") for _ in range(50)))
    assert (set(found), len(server.requests)) == ({"second"}, 2)
    assert await account.token(AT, 5.0) == "second"


async def test_all_who_wait_for_an_endpoint_that_hangs_end_in_time(server: Server, http: HttpClient) -> None:
    server.script = wire.hangs
    account, begun = login(server, http), time.monotonic()
    found = await asyncio.gather(*(account.token(AT, 0.3) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in found} == {NotSent}
    assert time.monotonic() - begun < 1.5


async def test_after_a_failure_it_is_asked_again(server: Server, http: HttpClient) -> None:
    server.script = in_turn(answer(503), yes("token"))
    account = login(server, http)
    with pytest.raises(NotSent):
        await account.token(AT, 5.0)
    assert await account.token(AT, 5.0) == "token"


@pytest.mark.parametrize("code", [code for code, _ in CODES.items()])
async def test_a_no_to_the_account_stops_it(code: str, server: Server, http: HttpClient) -> None:
    said = json.dumps({"error": code, "error_description": "Invalid JWT Signature."}).encode()
    error = await failed(server, http, answers(answer(400, said)))
    assert (type(error), error.code) == (Misconfigured, code)
    assert "Invalid JWT Signature." in error.detail


@pytest.mark.parametrize(
    ("script", "expected", "code"),
    [
        (answers(answer(400, b'{"error":"something_new"}')), Misconfigured, "something_new"),
        (answers(answer(400, b'{"error":{"code":400}}')), Misconfigured, "http_400"),
        (answers(answer(404)), Misconfigured, "http_404"),
        (answers(answer(302, b"", "Location: /")), Misconfigured, "http_302"),
        (answers(answer(429)), Throttled, "http_429"),
        (answers(answer(500)), NotSent, "http_500"),
        (answers(answer(503, b"<h1>Sorry</h1>")), NotSent, "http_503"),
        (answers(answer(200, b"<h1>Welcome</h1>")), NotSent, "unreadable_token"),
        (answers(yes("two words")), NotSent, "unreadable_token"),
        (answers(yes("a\r\nX-Header: b")), NotSent, "unreadable_token"),
        (wire.closes_after_reading, NotSent, "connection_lost"),
        (wire.once(b"220 mail.example ESMTP\r\n"), NotSent, "unreadable_answer"),
    ],
)
async def test_no_failure_leaves_a_doubt_about_the_message(
    script: Script, expected: type[SendError], code: str, server: Server, http: HttpClient
) -> None:
    error = await failed(server, http, script)
    assert (type(error), error.code) == (expected, code)


async def test_an_endpoint_that_is_not_there_is_named_as_what_is_missing(http: HttpClient) -> None:
    async with Server.started() as gone:
        account = login(gone, http)
    with pytest.raises(NotSent, match="access token") as caught:
        await account.token(AT, 5.0)
    assert caught.value.code == "refused"


@pytest.mark.parametrize("name", ["project_id", "private_key_id", "private_key", "client_email", "token_uri"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_a_file_that_lacks_a_field_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=rf"^service_account: .* lacks {name}$"):
        ServiceAccount.read(account_file(**{name: value}))


@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_service_accounts_file_is_refused_without_being_shown(kind: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        ServiceAccount.read(NOT_FILES[kind])
    assert caught.value.name == "service_account"
    assert "secret-of-the-shop" not in str(caught.value)
