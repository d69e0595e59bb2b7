"""Discord: what is asked for, direct messages by a channel of their own, and what its codes mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from channels.discord import CODES, Discord
from channels.http import HttpClient
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers, in_turn

TOKEN = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.of-the-bot"


def no(status: int, code: int, message: str = "no", *headers: str, **more: Any) -> bytes:
    """Discord's refusal."""
    return answer(status, json.dumps({"code": code, "message": message, **more}).encode(), *headers)


class TestDiscord(HttpContract):
    provider = Discord
    channel = "discord"
    to = "290926798999357250"
    settings = {"token": TOKEN}
    accepted_body = b'{"id":"334385199974967042","channel_id":"290926798999357250","content":"x"}'
    provider_message_id = "290926798999357250:334385199974967042"

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, json.loads(body)

    async def test_a_text_is_posted_to_the_channel_and_mentions_nobody(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="@everyone ¡Hola! 👋")
        assert head.startswith(b"POST /channels/290926798999357250/messages HTTP/1.1\r\n")
        assert f"Authorization: Bot {TOKEN}".encode() in head
        assert b"User-Agent: DiscordBot (" in head
        assert asked["content"] == "@everyone ¡Hola! 👋"
        assert asked["allowed_mentions"] == {"parse": []}

    async def test_the_nonce_is_the_same_at_each_attempt(self, server: Server, http: HttpClient) -> None:
        nonces = {(await self.sent(server, http, attempt=attempt))[1]["nonce"] for attempt in (1, 2)}
        assert len(nonces) == 1
        assert len(nonces.pop()) <= 25

    async def test_a_user_is_written_to_in_a_direct_channel(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(answer(200, b'{"id":"77","type":1}'), self.accepted)
        accepted = await self.at(server.url, http).send(self.outbound(to="user:82198898841029460"))
        opened, posted = (request.partition(b"\r\n\r\n") for request in server.requests)
        assert opened[0].startswith(b"POST /users/@me/channels ")
        assert json.loads(opened[2]) == {"recipient_id": "82198898841029460"}
        assert posted[0].startswith(b"POST /channels/77/messages ")
        assert accepted.provider_message_id == "77:334385199974967042"

    async def test_a_direct_channel_that_does_not_open_leaves_no_doubt(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(500, b"{}"))
        with pytest.raises(NotSent):
            await self.at(server.url, http).send(self.outbound(to="user:82198898841029460"))

    @pytest.mark.parametrize(
        ("status", "code", "expected"),
        [
            (403, 50007, RecipientRefused),
            (404, 10003, RecipientRefused),
            (404, 10013, RecipientRefused),
            (400, 50006, ContentRefused),
            (400, 50035, ContentRefused),
            (403, 50001, Misconfigured),
            (403, 50013, Misconfigured),
            (401, 0, Misconfigured),
            (503, 130000, Transient),
            (400, 999999, ContentRefused),
        ],
    )
    async def test_a_refusal_is_classed_by_its_code(
        self, status: int, code: int, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(status, code)))
        assert type(error) is expected
        assert error.code == str(code)

    async def test_who_takes_no_direct_messages_is_not_written_to_again(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(403, 50007, "Cannot send messages to this user")))
        assert isinstance(error, RecipientRefused)
        assert error.suppress

    @pytest.mark.parametrize(("everybody", "scope"), [(True, Scope.ACCOUNT), (False, Scope.RECIPIENT)])
    async def test_a_throttle_tells_whom_it_concerns(
        self, everybody: bool, scope: Scope, server: Server, http: HttpClient
    ) -> None:
        said = no(429, 0, "You are being rate limited.", "Retry-After: 65", retry_after=64.57, **{"global": everybody})
        error = await self.failed(server, http, answers(said))
        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (64.57, scope)

    def test_what_discord_would_refuse_is_refused_at_the_door(self) -> None:
        assert Discord.refuse(self.outbound(text="x" * 2000)) == {}
        assert "2,000" in Discord.refuse(self.outbound(text="x" * 2001))["text"]
        assert Discord.refuse(self.outbound(text="", options={"embeds": [{"title": "x"}]})) == {}
        assert "options.embeds" in Discord.refuse(self.outbound(options={"embeds": [{}] * 11}))
        assert "to" in Discord.refuse(self.outbound(to="general"))

    @pytest.mark.parametrize("token", ["short", "Bot MTk4NjIyNDgzNDcxOTI1MjQ4", "MTk4NjIyNDgzNDcxOTI1MjQ4\n"])
    def test_a_token_that_would_break_the_header_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidOption, match="token"):
            Discord.check({"token": token})

    def test_each_code_has_words_for_people(self) -> None:
        assert all(len(code.text) > 10 for _, code in CODES.items())
