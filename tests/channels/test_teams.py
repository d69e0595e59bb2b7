"""Teams by a workflow's webhook: what is asked for, and what its words mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.base import ContentRefused, InvalidOption, Misconfigured, SendError, Throttled
from channels.http import HttpClient
from channels.teams import Teams
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers


def no(status: int, code: str, *headers: str) -> bytes:
    return answer(status, json.dumps({"error": {"code": code, "message": "no"}}).encode(), *headers)


class TestTeams(HttpContract):
    provider = Teams
    channel = "teams"
    to = "general"
    settings = {"base_url": "https://prod.example/workflows/1/triggers/manual/paths/invoke?sig=secret-of-the-url"}
    accepted_status = 202
    accepted_body = b""
    provider_message_id = ""
    reads_the_answer = False

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> dict[str, Any]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        asked: dict[str, Any] = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])
        return asked

    async def test_a_text_becomes_a_card(self, server: Server, http: HttpClient) -> None:
        asked = await self.sent(server, http, text="¡Hola! 👋", subject="Pedido 7")
        (attachment,) = asked["attachments"]
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        assert [block["text"] for block in attachment["content"]["body"]] == ["Pedido 7", "¡Hola! 👋"]

    async def test_a_card_goes_as_it_is(self, server: Server, http: HttpClient) -> None:
        card = {"type": "AdaptiveCard", "version": "1.4", "body": []}
        asked = await self.sent(server, http, text="", options={"card": card})
        assert asked["attachments"][0]["content"] == card

    @pytest.mark.parametrize(
        ("status", "code", "expected"),
        [
            (400, "TriggerInputSchemaMismatch", ContentRefused),
            (401, "DirectApiAuthorizationRequired", Misconfigured),
            (403, "AuthorizationFailed", Misconfigured),
            (404, "WorkflowNotFound", Misconfigured),
            (404, "", Misconfigured),
            (410, "", Misconfigured),
            (400, "WorkflowTriggerIsNotEnabled", Misconfigured),
            (429, "TooManyRequests", Throttled),
        ],
    )
    async def test_a_refusal_is_classed_by_its_code(
        self, status: int, code: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        assert type(await self.failed(server, http, answers(no(status, code)))) is expected

    def test_what_teams_would_refuse_is_refused_at_the_door(self) -> None:
        assert "28,000" in Teams.refuse(self.outbound(text="x" * 28_000))["text"]
        assert "text" in Teams.refuse(self.outbound(text="", html="<b>x</b>"))
        assert "options.card" in Teams.refuse(self.outbound(options={"card": "x"}))

    def test_an_old_connectors_address_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match="switched off"):
            Teams.check({"base_url": "https://shop.webhook.office.com/webhookb2/1"})
