"""LINE: what is asked for, its key that makes repeats harmless, and what its refusals mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.base import ContentRefused, Misconfigured, RecipientRefused, SendError, Throttled
from channels.http import HttpClient
from channels.line import Line
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers


def no(status: int, message: str, *details: dict[str, str]) -> bytes:
    """LINE's refusal."""
    return answer(status, json.dumps({"message": message, "details": list(details)}).encode())


class TestLine(HttpContract):
    provider = Line
    channel = "line"
    to = "U4af4980629"
    settings = {"token": "token-of-the-channel"}
    accepted_body = b'{"sentMessages":[{"id":"461230966842064897","quoteToken":"IStG5h1Tz7b"}]}'
    provider_message_id = "461230966842064897"

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, json.loads(body)

    async def test_a_text_is_pushed_under_our_key(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="¡Hola! 👋")
        assert head.startswith(b"POST /v2/bot/message/push HTTP/1.1\r\n")
        assert f"X-Line-Retry-Key: {self.outbound().message_id}".encode() in head
        assert asked == {"to": "U4af4980629", "messages": [{"type": "text", "text": "¡Hola! 👋"}]}

    async def test_messages_of_its_own_form_stand_for_the_text(self, server: Server, http: HttpClient) -> None:
        given = [{"type": "sticker", "packageId": "446", "stickerId": "1988"}]
        _, asked = await self.sent(server, http, text="", options={"messages": given, "notification_disabled": True})
        assert asked == {"to": "U4af4980629", "messages": given, "notificationDisabled": True}

    async def test_a_repeat_that_line_knows_is_acceptance(self, server: Server, http: HttpClient) -> None:
        said = answer(409, b'{"message":"already accepted"}', "X-Line-Accepted-Request-Id: 123e4567")
        server.script = answers(said)
        accepted = await self.at(server.url, http).send(self.outbound())
        assert accepted.provider_message_id == "123e4567"

    @pytest.mark.parametrize(
        ("status", "message", "expected"),
        [
            (400, "The property, 'to', in the request body is invalid", RecipientRefused),
            (400, "Failed to send messages", RecipientRefused),
            (400, "The request body has 2 error(s)", ContentRefused),
            (401, "Authentication failed", Misconfigured),
            (403, "Not available for your plan", Misconfigured),
            (429, "You have reached your monthly limit.", Misconfigured),
            (429, "The API rate limit has been exceeded.", Throttled),
        ],
    )
    async def test_a_refusal_is_classed_by_status_and_words(
        self, status: int, message: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        assert type(await self.failed(server, http, answers(no(status, message)))) is expected

    async def test_what_is_wrong_with_a_field_is_told(self, server: Server, http: HttpClient) -> None:
        said = no(
            400, "The request body has 1 error(s)", {"property": "messages[0].text", "message": "May not be empty"}
        )
        error = await self.failed(server, http, answers(said))
        assert "messages[0].text May not be empty" in error.detail

    def test_what_line_would_refuse_is_refused_at_the_door(self) -> None:
        assert Line.refuse(self.outbound(text="x" * 5000)) == {}
        assert "5,000" in Line.refuse(self.outbound(text="x" * 5001))["text"]
        assert "options.messages" in Line.refuse(self.outbound(options={"messages": [{}] * 6}))
        assert "options.messages" in Line.refuse(self.outbound(options={"messages": "x"}))
