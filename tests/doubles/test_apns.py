"""APNs over HTTP/2 as WireMock speaks it, whose server is Jetty: TLS with ALPN, streams and windows by another implementation.

What Apple answers is told to it by its documentation; nobody publishes a double of APNs itself.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from channels.apns import Apns
from channels.base import Accepted, InDoubt, NotSent, Outbound, RecipientRefused, Scope, SendError, Throttled
from channels.http import HttpClient
from tests.doubles.conftest import WireMock

pytestmark = pytest.mark.doubles

TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
MESSAGE = Outbound("0190a5b4-7c00-7000-8000-0123456789ab", "push", TOKEN, text="¡Hola! 👋", subject="Pedido 7")
#: What APNs wants of a request: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
WANTED = {
    "method": "POST",
    "urlPath": f"/3/device/{TOKEN}",
    "headers": {
        "apns-topic": {"equalTo": "com.example.shop"},
        "apns-push-type": {"equalTo": "alert"},
        "apns-expiration": {"matches": "[0-9]{10}"},
        "apns-id": {"matches": "[0-9a-f-]{36}"},
        "authorization": {"matches": r"bearer [\w-]+\.[\w-]+\.[\w-]+"},
    },
    "bodyPatterns": [{"matchesJsonPath": "$.aps.alert[?(@.title == 'Pedido 7' && @.body == '¡Hola! 👋')]"}],
}
YES = {"status": 200, "headers": {"apns-id": "{{request.headers.apns-id}}"}, "transformers": ["response-template"]}


@pytest.fixture(scope="module")
def key() -> str:
    """A key as Apple's developer site gives it."""
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def apns(wiremock: WireMock, monkeypatch: pytest.MonkeyPatch) -> WireMock:
    """The double without stubs, which the client trusts."""

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cadata=wiremock.authority)
        made.set_alpn_protocols(["h2"])
        return made

    monkeypatch.setattr("channels.http2.tls_context", context)
    admin(wiremock, "DELETE", "mappings")
    admin(wiremock, "DELETE", "requests")
    return wiremock


def admin(double: WireMock, method: str, path: str, asked: Any = None) -> Any:
    """What WireMock's own API answers."""
    body = None if asked is None else json.dumps(asked).encode()
    with urlopen(
        Request(f"{double.admin}/{path}", body, {"Content-Type": "application/json"}, method=method)
    ) as answer:
        return json.loads(answer.read() or b"null")


def answering(double: WireMock, **response: Any) -> None:
    """From now on a request as APNs wants it gets ``response``; any other one 404."""
    admin(double, "POST", "mappings", {"request": WANTED, "response": response})


def requests(double: WireMock) -> list[Any]:
    """What came in."""
    return [each["request"] for each in admin(double, "GET", "requests")["requests"]]


@asynccontextmanager
async def account(double: WireMock, key: str) -> AsyncIterator[Apns]:
    """An account whose vendor is the double."""
    settings = {"key": key, "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "topic": "com.example.shop"}
    async with HttpClient() as http:
        provider = Apns(Apns.check({**settings, "base_url": double.url}), http)
        try:
            yield provider
        finally:
            await provider.close()


async def sent(
    double: WireMock, key: str, count: int = 1, call_seconds: float = 15.0
) -> list[Accepted | BaseException]:
    """What so many messages at once give."""
    async with account(double, key) as provider:
        provider.call_seconds = call_seconds
        messages = [replace(MESSAGE, message_id=f"{MESSAGE.message_id[:-3]}{number:03x}") for number in range(count)]
        return await asyncio.gather(*(provider.send(each) for each in messages), return_exceptions=True)


def test_a_message_is_what_apns_wants_and_goes_by_http2(apns: WireMock, key: str) -> None:
    answering(apns, **YES)
    (given,) = asyncio.run(sent(apns, key))
    assert given == Accepted(f"{MESSAGE.message_id[:-3]}000")
    (request,) = requests(apns)
    assert request["protocol"].startswith("HTTP/2")


def test_hundreds_at_once_get_each_its_own_answer(apns: WireMock, key: str) -> None:
    answering(apns, **YES, delayDistribution={"type": "uniform", "lower": 0, "upper": 200})
    given = asyncio.run(sent(apns, key, 400))
    assert given == [Accepted(f"{MESSAGE.message_id[:-3]}{number:03x}") for number in range(400)]


def refused(double: WireMock, key: str, **how: Any) -> SendError:
    """What one message gives that is not accepted."""
    (error,) = asyncio.run(sent(double, key, **how))
    assert isinstance(error, SendError)
    return error


def test_a_token_that_is_gone_is_suppressed(apns: WireMock, key: str) -> None:
    answering(apns, status=410, jsonBody={"reason": "Unregistered", "timestamp": 1_700_000_000_000})
    error = refused(apns, key)
    assert isinstance(error, RecipientRefused)
    assert (error.code, error.suppress) == ("Unregistered", True)


def test_a_device_that_has_enough_waits_alone(apns: WireMock, key: str) -> None:
    answering(apns, status=429, jsonBody={"reason": "TooManyRequests"})
    error = refused(apns, key)
    assert isinstance(error, Throttled)
    assert error.scope is Scope.RECIPIENT


def test_silence_is_in_doubt(apns: WireMock, key: str) -> None:
    answering(apns, **YES, fixedDelayMilliseconds=5_000)
    error = refused(apns, key, call_seconds=1.0)
    assert (type(error), error.code) == (InDoubt, "timeout")


@pytest.mark.parametrize(
    "fault", ["CONNECTION_RESET_BY_PEER", "EMPTY_RESPONSE", "RANDOM_DATA_THEN_CLOSE", "MALFORMED_RESPONSE_CHUNK"]
)
def test_what_breaks_after_the_request_is_in_doubt(fault: str, apns: WireMock, key: str) -> None:
    answering(apns, fault=fault)
    assert type(refused(apns, key, call_seconds=3.0)) is InDoubt


def test_a_double_that_nobody_vouches_for_gets_nothing(
    apns: WireMock, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(apns, **YES)
    monkeypatch.undo()
    error = refused(apns, key)
    assert (type(error), error.code, requests(apns)) == (NotSent, "tls", [])
