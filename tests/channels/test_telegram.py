"""Telegram's Bot API: what is asked for, and what its words mean."""

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
from channels.telegram import Telegram
from tests.channels.contract import attachment
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

TOKEN = "1000000:AAHsecret-of-the_bot"


def no(status: int, description: str, **parameters: Any) -> bytes:
    """The Bot API's refusal."""
    said: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    if parameters:
        said["parameters"] = parameters
    return answer(status, json.dumps(said).encode())


class TestTelegram(HttpContract):
    provider = Telegram
    channel = "telegram"
    to = "123456789"
    settings = {"token": TOKEN}
    accepted_body = b'{"ok":true,"result":{"message_id":42,"date":1700000000,"chat":{"id":123456789,"type":"private"}}}'
    provider_message_id = "123456789:42"

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[str, dict[str, Any]]:
        """Path and JSON of the request that a message becomes."""
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head.split()[1].decode(), json.loads(body)

    async def test_a_text_goes_by_send_message(self, server: Server, http: HttpClient) -> None:
        path, asked = await self.sent(server, http, text="¡Hola! 👋")
        assert path == f"/bot{TOKEN}/sendMessage"
        assert asked == {"chat_id": 123456789, "text": "¡Hola! 👋"}

    async def test_a_public_name_is_written_to_as_it_is(self, server: Server, http: HttpClient) -> None:
        _, asked = await self.sent(server, http, to="@shop_news")
        assert asked["chat_id"] == "@shop_news"

    @pytest.mark.parametrize(
        ("option", "method", "field"),
        [("photo_url", "sendPhoto", "photo"), ("document_url", "sendDocument", "document")],
    )
    async def test_media_go_by_their_own_method_with_the_text_as_caption(
        self, option: str, method: str, field: str, server: Server, http: HttpClient
    ) -> None:
        path, asked = await self.sent(
            server, http, options={option: "https://shop.example/1.jpg", "parse_mode": "HTML"}
        )
        assert path.endswith(f"/{method}")
        assert asked[field] == "https://shop.example/1.jpg"
        assert asked["caption"] == "Your order is on its way."
        assert asked["parse_mode"] == "HTML"
        assert "text" not in asked

    @pytest.mark.parametrize(
        ("content_type", "method", "field"),
        [
            ("image/png", "sendPhoto", "photo"),
            ("image/svg+xml", "sendDocument", "document"),
            ("video/mp4", "sendVideo", "video"),
            ("audio/mpeg", "sendAudio", "audio"),
            ("application/pdf", "sendDocument", "document"),
        ],
    )
    async def test_an_attachment_goes_by_the_method_of_its_kind(
        self, content_type: str, method: str, field: str, server: Server, http: HttpClient
    ) -> None:
        given = attachment(content_type)
        path, asked = await self.sent(server, http, attachments=(given,))
        assert path.endswith(f"/{method}")
        assert (asked[field], asked["caption"]) == (given.url, "Your order is on its way.")

    def test_an_attachment_and_a_url_are_two_messages(self) -> None:
        both = self.outbound(
            attachments=(attachment("image/png"),), options={"photo_url": "https://shop.example/1.jpg"}
        )
        assert "attachments" in Telegram.refuse(both)["options.photo_url"]
        assert "1024" in Telegram.refuse(self.outbound(text="x" * 1025, attachments=(attachment("image/png"),)))["text"]

    async def test_a_photo_needs_no_text(self, server: Server, http: HttpClient) -> None:
        options = {"photo_url": "https://shop.example/1.jpg"}
        assert Telegram.refuse(self.outbound(text="", options=options)) == {}
        _, asked = await self.sent(server, http, text="", options=options)
        assert "caption" not in asked

    def test_what_telegram_would_refuse_is_refused_at_the_door(self) -> None:
        photo = {"photo_url": "https://shop.example/1.jpg"}
        assert Telegram.refuse(self.outbound(text="x" * 4096)) == {}
        assert "4096" in Telegram.refuse(self.outbound(text="x" * 4097))["text"]
        assert "1024" in Telegram.refuse(self.outbound(text="x" * 1025, options=photo))["text"]
        assert "parse_mode" in Telegram.refuse(self.outbound(text="", html="<b>x</b>"))["text"]
        assert "options.parse_mode" in Telegram.refuse(self.outbound(options={"parse_mode": "html"}))
        assert "options.document_url" in Telegram.refuse(
            self.outbound(options={**photo, "document_url": "https://x.y"})
        )

    def test_markup_does_not_count_against_the_limit(self) -> None:
        assert Telegram.refuse(self.outbound(text="<b></b>" * 1000, options={"parse_mode": "HTML"})) == {}

    @pytest.mark.parametrize("token", ["abc", "1:a/../b", "1:abc?x=1", "1:abcdef\n"])
    def test_a_token_that_would_change_the_url_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidOption, match="token"):
            Telegram.check({"token": token})

    @pytest.mark.parametrize(
        ("status", "description", "expected", "suppress"),
        [
            (403, "Forbidden: bot was blocked by the user", RecipientRefused, True),
            (403, "Forbidden: user is deactivated", RecipientRefused, True),
            (403, "Forbidden: bot was kicked from the supergroup chat", RecipientRefused, True),
            (403, "Forbidden: bot can't initiate conversation with a user", RecipientRefused, False),
            (400, "Bad Request: USER_IS_BLOCKED", RecipientRefused, True),
            (400, "Bad Request: chat not found", RecipientRefused, False),
            (400, "Bad Request: PEER_ID_INVALID", RecipientRefused, False),
            (400, "Bad Request: not enough rights to send text messages to the chat", RecipientRefused, False),
            (400, "Bad Request: message thread not found", RecipientRefused, False),
            (400, "Bad Request: message is too long", ContentRefused, None),
            (400, "Bad Request: can't parse entities: Unsupported start tag", ContentRefused, None),
            (400, "Bad Request: wrong file identifier/HTTP URL specified", ContentRefused, None),
            (400, "Bad Request: BUTTON_URL_INVALID", ContentRefused, None),
            (413, "Request Entity Too Large", ContentRefused, None),
            (401, "Unauthorized", Misconfigured, None),
            (404, "Not Found", Misconfigured, None),
            (409, "Conflict: terminated by other getUpdates request", Misconfigured, None),
            (500, "Internal Server Error", Transient, None),
        ],
    )
    async def test_a_refusal_is_classed_by_code_and_words(
        self,
        status: int,
        description: str,
        expected: type[SendError],
        suppress: bool | None,
        server: Server,
        http: HttpClient,
    ) -> None:
        error = await self.failed(server, http, answers(no(status, description)))
        assert type(error) is expected
        assert error.code == str(status)
        assert getattr(error, "suppress", None) is suppress

    async def test_the_wait_is_the_one_in_the_body(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(429, "Too Many Requests: retry after 35", retry_after=35)))
        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (35, Scope.ACCOUNT)

    @pytest.mark.parametrize("rubbish", ["soon", -1, None, {"s": 1}, 10**400])
    async def test_a_wait_that_is_no_number_of_seconds_is_bounded(
        self, rubbish: object, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(429, "Too Many Requests", retry_after=rubbish)))
        assert isinstance(error, Throttled)
        assert error.retry_after is None or 0 <= error.retry_after <= 86_400

    @pytest.mark.parametrize("to", ["-1001234567890", "@shop_news"])
    async def test_a_group_is_throttled_by_itself(self, to: str, server: Server, http: HttpClient) -> None:
        server.script = answers(no(429, "Too Many Requests: retry after 35", retry_after=35))
        with pytest.raises(Throttled) as caught:
            await self.at(server.url, http).send(self.outbound(to=to))
        assert caught.value.scope is Scope.RECIPIENT

    async def test_a_group_that_has_moved_says_where_to(self, server: Server, http: HttpClient) -> None:
        said = no(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1009)
        error = await self.failed(server, http, answers(said))
        assert (type(error), error.code) == (RecipientRefused, "migrated")
        assert "-1009" in error.detail

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_a_refusal_that_is_not_telegrams_points_at_the_account(
        self, status: int, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(status, b"<h1>nginx</h1>")))
        assert type(error) is Misconfigured

    @pytest.mark.parametrize(
        "body",
        [
            {"ok": True},
            {"ok": True, "result": True},
            {"ok": True, "result": {"message_id": "42", "chat": {"id": 1}}},
            {"ok": "true", "result": {"message_id": 42, "chat": {"id": 1}}},
            {"ok": False},
        ],
    )
    async def test_a_yes_without_a_message_is_in_doubt(
        self, body: dict[str, Any], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(200, json.dumps(body).encode())))
        assert type(error) is InDoubt

    async def test_a_no_with_status_200_is_a_no(self, server: Server, http: HttpClient) -> None:
        said = {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"}
        error = await self.failed(server, http, answers(answer(200, json.dumps(said).encode())))
        assert type(error) is RecipientRefused

    async def test_the_token_is_in_no_error(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(400, f"Bad Request: /bot{TOKEN}/sendMessage")))
        assert TOKEN not in str(error)
        assert "[secret]" in error.detail
