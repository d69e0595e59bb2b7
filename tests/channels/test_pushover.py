"""Pushover: what is asked for, and what its refusals mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.base import ContentRefused, Misconfigured, RecipientRefused, SendError
from channels.http import HttpClient
from channels.pushover import Pushover
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

USER = "uQiRzpo4DXghDmr9QzzfQu27cmVRsG"


class TestPushover(HttpContract):
    provider = Pushover
    channel = "push"
    to = USER
    settings = {"token": "azGDORePK8gMaC0QOYAMyEEuzJnyUi"}
    accepted_body = b'{"status":1,"request":"647d2300-702c-4b38-8b2f-d56326ae460b"}'
    provider_message_id = "647d2300-702c-4b38-8b2f-d56326ae460b"

    async def asked(self, server: Server, http: HttpClient, **changes: Any) -> dict[str, Any]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /1/messages.json HTTP/1.1\r\n")
        found: dict[str, Any] = json.loads(body)
        assert found.pop("token") == "azGDORePK8gMaC0QOYAMyEEuzJnyUi"
        return found

    async def test_a_text_goes_with_its_title_and_options(self, server: Server, http: HttpClient) -> None:
        found = await self.asked(
            server, http, text="¡Listo! 👋", subject="Order 7", options={"priority": -1, "ttl": 60}
        )
        assert found == {"user": USER, "message": "¡Listo! 👋", "title": "Order 7", "priority": -1, "ttl": 60}

    async def test_html_is_said_to_be_html(self, server: Server, http: HttpClient) -> None:
        found = await self.asked(server, http, text="plain", html="<b>now</b>", subject="")
        assert found == {"user": USER, "message": "<b>now</b>", "html": 1}

    @pytest.mark.parametrize(
        ("status", "said", "expected", "code"),
        [
            (400, {"user": "invalid", "errors": ["user identifier is invalid"]}, RecipientRefused, "user"),
            (400, {"device": "invalid", "errors": ["device name is not valid"]}, RecipientRefused, "device"),
            (400, {"token": "invalid", "errors": ["application token is invalid"]}, Misconfigured, "token"),
            (400, {"message": "cannot be blank", "errors": ["message cannot be blank"]}, ContentRefused, "http_400"),
            (429, {"errors": ["application is over its quota"]}, Misconfigured, "monthly_limit"),
        ],
    )
    async def test_a_refusal_is_classed_by_what_it_names(
        self, status: int, said: dict[str, Any], expected: type[SendError], code: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(status, json.dumps({"status": 0, **said}).encode())))
        assert (type(error), error.code) == (expected, code)
        assert said["errors"][0] in error.detail

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": ""}, "text"),
            ({"text": "x" * 1025}, "text"),
            ({"html": "x" * 1025}, "html"),
            ({"subject": "x" * 251}, "subject"),
            ({"to": "somebody"}, "to"),
            ({"options": {"priority": 3}}, "options.priority"),
            ({"options": {"priority": 2, "retry": 60}}, "options.expire"),
        ],
    )
    def test_what_pushover_would_refuse_is_refused_at_the_door(self, changes: dict[str, Any], field: str) -> None:
        assert set(Pushover.refuse(self.outbound(**changes))) == {field}
        assert Pushover.refuse(self.outbound()) == {}
