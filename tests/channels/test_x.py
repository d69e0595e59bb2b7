"""X: what is signed and asked for, and what its codes and its windows mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import pytest

from channels.base import (
    ContentRefused,
    InDoubt,
    Misconfigured,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from channels.x import CODES, X
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw"
TOKEN_SECRET = "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE"

EXPECTED: dict[type[SendError], str] = {
    Throttled: "88",
    Transient: "130 131",
    RecipientRefused: "not-authorized-for-resource resource-not-found 50 63 108 150 349",
    ContentRefused: "invalid-request 151 226 354",
    Misconfigured: "usage-capped credits client-forbidden oauth1-permissions unsupported-authentication"
    " 32 64 87 89 99 135 215 220 261 326 416 453",
}
CASES = [(code, error) for error, codes in EXPECTED.items() for code in codes.split()]


def problem(kind: str, detail: str = "no", status: int = 403) -> dict[str, Any]:
    """A refusal in today's form."""
    return {"title": "Refused", "detail": detail, "type": kind, "status": status}


def told(code: str) -> dict[str, Any]:
    """A refusal in the form that this code comes in."""
    if code.isdigit():
        return {"errors": [{"code": int(code), "message": "so it is"}]}
    return problem(f"https://api.x.com/2/problems/{code}", "so it is")


def no(status: int, said: dict[str, Any], *headers: str) -> bytes:
    return answer(status, json.dumps(said).encode(), *headers)


def epoch(seconds: int) -> int:
    """So many seconds after ``AT``, as X tells times."""
    return int(AT.timestamp()) + seconds


def oauth(request: bytes) -> dict[str, str]:
    """The parameters of the header that signs a request."""
    [line] = [line for line in request.decode().split("\r\n") if line.startswith("Authorization: OAuth ")]
    return {name: unquote(value) for name, value in re.findall(r'(\w+)="([^"]*)"', line)}


def signature(url: str, parameters: dict[str, str]) -> str:
    """RFC 5849, section 3.4, for a POST whose body is not a form."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    text = "&".join(f"{name}={value}" for name, value in pairs)
    base = "&".join(["POST", quote(url, safe=""), quote(text, safe="")])
    key = f"{quote(SECRET, safe='')}&{quote(TOKEN_SECRET, safe='')}"
    return base64.b64encode(hmac.new(key.encode(), base.encode(), hashlib.sha1).digest()).decode()


class TestX(HttpContract):
    provider = X
    channel = "x"
    to = "2244994945"
    settings = {
        "consumer_key": "xvz1evFS4wEEPTGEFPHBog",
        "consumer_secret": SECRET,
        "access_token": "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        "access_token_secret": TOKEN_SECRET,
    }
    message = {"at": AT}
    accepted_status = 201
    accepted_body = b'{"data":{"dm_conversation_id":"2244994945-370773112","dm_event_id":"1146654567674912769"}}'
    provider_message_id = "1146654567674912769"

    async def test_a_text_goes_to_the_conversation_with_its_recipient(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(text="¡Listo! 👋"))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /2/dm_conversations/with/2244994945/messages HTTP/1.1\r\n")
        assert b"Content-Type: application/json" in head
        assert json.loads(body) == {"text": "¡Listo! 👋"}

    async def test_the_request_is_signed_at_the_given_time_and_its_body_is_not(
        self, server: Server, http: HttpClient
    ) -> None:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound())
        given = oauth(server.requests[0])
        url = f"{server.url}/2/dm_conversations/with/2244994945/messages"
        assert given.pop("oauth_signature") == signature(url, given)
        assert given.pop("oauth_nonce")
        assert given == {
            "oauth_consumer_key": "xvz1evFS4wEEPTGEFPHBog",
            "oauth_token": "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
            "oauth_timestamp": str(epoch(0)),
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_version": "1.0",
        }

    async def test_no_two_requests_have_the_same_nonce(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        provider = self.at(server.url, http)
        for _ in range(2):
            await provider.send(self.outbound())
        assert len({oauth(request)["oauth_nonce"] for request in server.requests}) == 2

    @pytest.mark.parametrize("base_url", ["https://[", "https:///2", "http://x:99999"])
    async def test_an_address_that_cannot_be_signed_is_the_accounts_fault(
        self, base_url: str, http: HttpClient
    ) -> None:
        with pytest.raises(Misconfigured) as caught:
            await self.at(base_url, http).send(self.outbound())
        assert caught.value.code == "invalid_url"

    @pytest.mark.parametrize(("code", "expected"), CASES)
    @pytest.mark.parametrize("status", [400, 403, 500])
    async def test_a_refusal_is_classed_by_its_code_whatever_the_status(
        self, code: str, expected: type[SendError], status: int, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(status, told(code))))
        assert (type(error), error.code) == (expected, code)
        assert error.detail.endswith(": so it is")

    def test_no_code_of_the_table_is_without_a_test(self) -> None:
        assert {code for code, _ in CODES.items()} == {code for code, _ in CASES}

    @pytest.mark.parametrize(
        ("status", "said", "expected"),
        [
            (
                403,
                problem("about:blank", "You do not have permission to DM one or more participants."),
                RecipientRefused,
            ),
            (403, problem("about:blank", "You cannot send messages to this user."), RecipientRefused),
            (403, problem("about:blank", "This operation is not permitted."), RecipientRefused),
            (403, problem("about:blank", "The app is not allowed to do that."), Misconfigured),
            (401, problem("about:blank", "Unauthorized"), Misconfigured),
            (400, problem("about:blank", "Bad Request"), ContentRefused),
            (404, problem("about:blank", "Not Found"), RecipientRefused),
            (404, {}, Misconfigured),
            (503, problem("about:blank", "Service Unavailable"), Transient),
            (429, problem("about:blank", "Too Many Requests"), Throttled),
        ],
    )
    async def test_a_refusal_without_a_code_is_classed_by_status_and_words(
        self, status: int, said: dict[str, Any], expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(status, said)))
        assert (type(error), error.code) == (expected, f"http_{status}")
        assert said.get("detail", "") in error.detail

    async def test_a_spent_period_is_no_matter_of_waiting(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(429, told("usage-capped"))))
        assert type(error) is Misconfigured

    @pytest.mark.parametrize(
        ("headers", "wait"),
        [
            (["x-rate-limit-remaining: 0", f"X-Rate-Limit-Reset: {epoch(600)}"], 600),
            (
                [
                    "x-rate-limit-remaining: 0",
                    f"x-rate-limit-reset: {epoch(600)}",
                    "x-user-limit-24hour-remaining: 0",
                    f"x-user-limit-24hour-reset: {epoch(7_200)}",
                ],
                7_200,
            ),
            (
                [
                    "x-rate-limit-remaining: 3",
                    f"x-rate-limit-reset: {epoch(600)}",
                    "x-app-limit-24hour-remaining: 0",
                    f"x-app-limit-24hour-reset: {epoch(3_600)}",
                ],
                3_600,
            ),
            (
                [
                    "x-rate-limit-remaining: 0",
                    f"x-rate-limit-reset: {epoch(600)}",
                    "x-user-limit-24hour-remaining: 9",
                    f"x-user-limit-24hour-reset: {epoch(7_200)}",
                ],
                600,
            ),
            ([f"x-user-limit-24hour-reset: {epoch(7_200)}"], 7_200),
            ([f"x-rate-limit-reset: {epoch(-5)}"], 0),
            ([f"x-rate-limit-reset: {epoch(1_000_000)}"], 86_400),
            (["x-rate-limit-reset: soon", "Retry-After: 7"], 7),
        ],
    )
    async def test_a_throttle_lasts_until_all_that_is_used_up_begins_anew(
        self, headers: list[str], wait: float, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(429, problem("about:blank"), *headers)))
        assert isinstance(error, Throttled)
        assert error.retry_after == wait

    @pytest.mark.parametrize(
        ("headers", "rest"),
        [
            ([], None),
            (["x-rate-limit-remaining: 1", f"x-rate-limit-reset: {epoch(600)}"], None),
            (["x-rate-limit-remaining: 0", f"x-rate-limit-reset: {epoch(600)}"], 600),
            (["x-rate-limit-remaining: 0", "x-rate-limit-reset: soon"], None),
            (
                [
                    "x-rate-limit-remaining: 0",
                    f"x-rate-limit-reset: {epoch(600)}",
                    "x-app-limit-24hour-remaining: 0",
                    f"x-app-limit-24hour-reset: {epoch(3_600)}",
                ],
                3_600,
            ),
        ],
    )
    async def test_a_message_that_used_up_what_is_allowed_was_taken_and_says_until_when(
        self, headers: list[str], rest: float | None, server: Server, http: HttpClient
    ) -> None:
        server.script = answers(answer(self.accepted_status, self.accepted_body, *headers))
        given = await self.at(server.url, http).send(self.outbound(at=AT))
        assert (given.provider_message_id, given.rest_seconds) == (self.provider_message_id, rest)

    async def test_the_code_of_a_throttle_waits_for_a_window_where_no_header_says_more(
        self, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(429, told("88"))))
        assert isinstance(error, Throttled)
        assert error.retry_after == 900

    async def test_a_success_with_errors_beside_its_data_is_a_success(self, server: Server, http: HttpClient) -> None:
        said = {"data": {"dm_event_id": "7"}, "errors": [problem("about:blank", "a field is missing")]}
        server.script = answers(no(201, said))
        given = await self.at(server.url, http).send(self.outbound())
        assert (given.provider_message_id, given.detail) == ("7", "a field is missing")

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [("https://api.x.com/2/problems/resource-not-found", RecipientRefused), ("about:blank", InDoubt)],
    )
    async def test_a_success_with_errors_alone_is_what_they_say_or_in_doubt(
        self, kind: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(200, {"errors": [problem(kind)]})))
        assert type(error) is expected

    @pytest.mark.parametrize("event", [7, "", "seven", "1" * 20, None])
    async def test_an_id_that_is_none_of_xs_is_in_doubt(self, event: object, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(201, {"data": {"dm_event_id": event}})))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    async def test_secrets_that_x_repeats_are_blanked(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(400, problem("about:blank", f"bad {TOKEN_SECRET}"))))
        assert error.detail == "bad [secret]"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": ""}, "text"),
            ({"text": "", "html": "<b>now</b>"}, "text"),
            ({"text": "x" * 10_001}, "text"),
            ({"to": "@somebody"}, "to"),
            ({"to": "1" * 20}, "to"),
            ({"to": "1/../2"}, "to"),
        ],
    )
    def test_what_x_would_refuse_is_refused_at_the_door(self, changes: dict[str, Any], field: str) -> None:
        assert set(X.refuse(self.outbound(**changes))) == {field}
        assert X.refuse(self.outbound(text="x" * 10_000)) == {}

    async def test_a_recipient_that_is_no_id_never_becomes_a_path(self, server: Server, http: HttpClient) -> None:
        with pytest.raises(ContentRefused):
            await self.at(server.url, http).send(self.outbound(to="../../tweets"))
        assert server.connections == 0

    def test_it_keeps_to_fifteen_in_a_quarter_of_an_hour(self) -> None:
        assert str(X.rates(self.settings).account) == "15/900s"
