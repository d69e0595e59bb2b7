"""Slack: what is asked for, and what its words mean, which come with status 200."""

from __future__ import annotations

import json
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
from channels.http import HttpClient
from channels.slack import CODES, Slack
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

TOKEN = "xoxb-1234567890-of-the-bot"


def no(error: str, status: int = 200, *headers: str) -> bytes:
    """Slack's refusal."""
    return answer(status, json.dumps({"ok": False, "error": error}).encode(), *headers)


class TestSlack(HttpContract):
    provider = Slack
    channel = "slack"
    to = "C0123456789"
    settings = {"token": TOKEN}
    accepted_body = b'{"ok":true,"channel":"C0123456789","ts":"1503435956.000247","message":{"text":"x"}}'
    provider_message_id = "C0123456789:1503435956.000247"

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        """Head and JSON of the request that a message becomes."""
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, json.loads(body)

    async def test_a_text_is_posted_to_the_conversation(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="¡Hola! 👋")
        assert head.startswith(b"POST /chat.postMessage HTTP/1.1\r\n")
        assert f"Authorization: Bearer {TOKEN}".encode() in head
        assert asked == {"channel": "C0123456789", "text": "¡Hola! 👋"}

    async def test_blocks_and_threads_are_passed_on(self, server: Server, http: HttpClient) -> None:
        options = {"blocks": [{"type": "divider"}], "thread_ts": "1503435956.000247", "unfurl_links": False}
        _, asked = await self.sent(server, http, options=options)
        assert {name: asked[name] for name in options} == options

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            ("channel_not_found", RecipientRefused),
            ("is_archived", RecipientRefused),
            ("not_in_channel", RecipientRefused),
            ("no_text", ContentRefused),
            ("msg_too_long", ContentRefused),
            ("invalid_auth", Misconfigured),
            ("token_revoked", Misconfigured),
            ("missing_scope", Misconfigured),
            ("internal_error", Transient),
            ("fatal_error", Transient),
            ("ratelimited", Throttled),
            ("something_that_nobody_has_seen", ContentRefused),
        ],
    )
    async def test_a_no_with_status_200_is_classed_by_its_word(
        self, error: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        failure = await self.failed(server, http, answers(no(error)))
        assert type(failure) is expected
        assert failure.code == error

    async def test_a_throttle_is_the_conversations_own(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no("ratelimited", 429, "Retry-After: 12")))
        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (12, Scope.RECIPIENT)

    @pytest.mark.parametrize("body", [b'{"ok":true}', b'{"ok":"true","channel":"C1","ts":"1.2"}', b'{"ok":false}'])
    async def test_an_answer_that_says_neither_is_in_doubt(self, body: bytes, server: Server, http: HttpClient) -> None:
        assert type(await self.failed(server, http, answers(answer(200, body)))) is InDoubt

    def test_what_slack_would_refuse_or_cut_is_refused_at_the_door(self) -> None:
        assert Slack.refuse(self.outbound(text="x" * 40_000)) == {}
        assert "40,000" in Slack.refuse(self.outbound(text="x" * 40_001))["text"]
        assert "text" in Slack.refuse(self.outbound(text="", html="<b>x</b>"))
        assert "options.blocks" in Slack.refuse(self.outbound(options={"blocks": [{}] * 51}))
        assert "options.blocks" in Slack.refuse(self.outbound(options={"blocks": "x"}))

    @pytest.mark.parametrize("token", ["abc", "xoxb-", "Bearer xoxb-1234567890", "xoxb-1234567890\n"])
    def test_a_token_that_is_none_of_slacks_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidOption, match="token"):
            Slack.check({"token": token})

    def test_each_code_has_words_for_people(self) -> None:
        assert all(len(code.text) > 10 for _, code in CODES.items())
