"""Signed webhooks: checked by the Standard Webhooks library, which nobody here wrote, and kept out of our network."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from channels import urls
from channels.base import (
    ContentRefused,
    InvalidOption,
    Outbound,
    Provider,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from channels.webhook import Webhook
from tests.channels.contract import MESSAGE_ID
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

SECRET = "whsec_" + b64encode(b"s" * 24).decode()
OTHER = "whsec_" + b64encode(b"o" * 32).decode()


class TestWebhook(HttpContract):
    """Through an egress host (``base_url``), as the contract needs it; `TestEndpoints` goes straight."""

    provider = Webhook
    channel = "webhook"
    to = "https://shop.example/hooks/1?kind=order"
    settings = {"secret": SECRET}
    accepted_status = 204
    accepted_body = b""
    provider_message_id = ""
    reads_the_answer = False

    @pytest.mark.parametrize("to", ["+569\r\nX: y", "\u202e <>", "ftp://shop.example/"])
    async def test_what_is_no_url_concerns_the_recipient_and_not_the_account(
        self, to: str, server: Server, http: HttpClient
    ) -> None:
        with pytest.raises(RecipientRefused, match="url_refused"):
            await self.at(server.url, http).send(self.outbound(to=to))
        assert not server.requests

    def test_an_empty_message_is_refused_at_the_door(self) -> None:
        assert "text" in Webhook.refuse(self.outbound(text=""))
        assert Webhook.refuse(self.outbound(text="", metadata={"order": 7})) == {}
        assert Webhook.refuse(self.outbound(text="", options={"payload": []})) == {}

    async def test_an_egress_host_gets_the_recipients_path(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        await self.at(server.url + "/egress/", http).send(self.outbound())
        assert server.requests[0].startswith(b"POST /egress/hooks/1?kind=order HTTP/1.1\r\n")

    @pytest.mark.parametrize(
        ("secret", "fits"),
        [
            ("whsec_" + b64encode(b"s" * 24).decode(), True),
            ("whsec_" + b64encode(b"s" * 64).decode(), True),
            (b64encode(b"s" * 25).decode().rstrip("="), True),
            ("whsec_" + b64encode(b"s" * 23).decode(), False),
            ("whsec_" + b64encode(b"s" * 65).decode(), False),
            ("whsec_", False),
            ("whsec_???", False),
            ("whsk_" + b64encode(b"s" * 32).decode(), False),
        ],
    )
    def test_a_secret_that_cannot_sign_is_refused(self, secret: str, fits: bool) -> None:
        if fits:
            Webhook(Webhook.check({"secret": secret}), HttpClient())
        else:
            with pytest.raises(InvalidOption, match="secret"):
                Webhook.check({"secret": secret})


class TestEndpoints:
    """Straight to the endpoint, as services' callbacks go."""

    @staticmethod
    def provider(http: HttpClient, **more: str) -> Provider:
        return Webhook(Webhook.check({"secret": SECRET, **more}), http)

    @staticmethod
    def outbound(server: Server, **changes: Any) -> Outbound:
        fields = {"message_id": MESSAGE_ID, "channel": "webhook", "to": server.url + "/hook", "text": "¡Hola!"}
        return Outbound(**{**fields, **changes})

    async def request(self, server: Server, http: HttpClient, **changes: Any) -> tuple[dict[str, str], bytes]:
        """Headers and body as the endpoint gets them."""
        server.script = answers(answer(204))
        await self.provider(http).send(self.outbound(server, **changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        rows = (row.partition(": ") for row in head.decode().split("\r\n")[1:])
        return {name.lower(): value for name, _, value in rows}, body

    async def test_the_official_library_verifies_what_is_sent(self, server: Server, http: HttpClient) -> None:
        headers, body = await self.request(server, http, subject="S", metadata={"order": 7}, reference="r-1")
        event = Verifier(SECRET).verify(body, headers)
        assert headers["webhook-id"] == MESSAGE_ID
        assert event["type"] == "message.sent"
        assert event["data"] == {
            "id": MESSAGE_ID,
            "text": "¡Hola!",
            "subject": "S",
            "html": "",
            "metadata": {"order": 7},
            "reference": "r-1",
        }
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(body + b" ", headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(OTHER).verify(body, headers)

    async def test_both_secrets_sign_while_one_replaces_the_other(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(200))
        await self.provider(http, previous_secret=OTHER).send(self.outbound(server))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        rows = (row.partition(": ") for row in head.decode().split("\r\n")[1:])
        headers = {name: value for name, _, value in rows}
        for secret in (SECRET, OTHER):
            Verifier(secret).verify(body, headers)

    async def test_a_repeat_has_the_same_id_and_body_and_its_own_time(self, server: Server, http: HttpClient) -> None:
        first, body = await self.request(server, http, attempt=1)
        second, again = await self.request(server, http, attempt=2)
        assert (body, first["webhook-id"]) == (again, second["webhook-id"])
        assert abs(datetime.now(UTC).timestamp() - int(second["webhook-timestamp"])) < 5

    async def test_it_is_dated_by_the_clock_that_it_is_given(self, server: Server, http: HttpClient) -> None:
        """The worker's own may be wrong, and receivers refuse what is minutes off."""
        at = datetime(2030, 1, 31, 12, tzinfo=UTC)
        headers, _ = await self.request(server, http, at=at)
        assert headers["webhook-timestamp"] == str(int(at.timestamp()))

    async def test_the_events_time_is_the_one_in_its_id(self, server: Server, http: HttpClient) -> None:
        _, body = await self.request(server, http)
        milliseconds = int(MESSAGE_ID.replace("-", "")[:12], 16)
        expected = datetime.fromtimestamp(milliseconds / 1000, UTC)
        assert datetime.fromisoformat(json.loads(body)["timestamp"]) == expected

    async def test_a_payload_is_the_whole_body(self, server: Server, http: HttpClient) -> None:
        _, body = await self.request(server, http, options={"payload": [1, {"a": "é"}]})
        assert body == '[1,{"a":"é"}]'.encode()

    async def test_half_a_character_in_a_payload_goes_as_json_can_say_it(
        self, server: Server, http: HttpClient
    ) -> None:
        headers, body = await self.request(server, http, options={"payload": {"a": "\ud800"}})
        assert body == b'{"a":"\\ud800"}'
        Verifier(SECRET).verify(body, headers)

    async def test_what_json_cannot_say_is_refused_and_never_in_doubt(self, server: Server, http: HttpClient) -> None:
        for payload in (float("nan"), {"a": float("inf")}, {1, 2}):
            outbound = self.outbound(server, options={"payload": payload})
            assert "options.payload" in Webhook.refuse(outbound)
            with pytest.raises(ContentRefused):
                await self.provider(http).send(outbound)
        assert server.connections == 0

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, ContentRefused),
            (401, Throttled),
            (403, Throttled),
            (404, Throttled),
            (409, Throttled),
            (410, RecipientRefused),
            (413, ContentRefused),
            (422, ContentRefused),
            (429, Throttled),
            (302, RecipientRefused),
            (500, Transient),
            (503, Transient),
        ],
    )
    async def test_what_one_endpoint_answers_concerns_that_endpoint_alone(
        self, status: int, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        server.script = answers(answer(status, b"", "Retry-After: 3"))
        with pytest.raises(SendError) as caught:
            await self.provider(http).send(self.outbound(server))
        assert type(caught.value) is expected
        assert getattr(caught.value, "scope", Scope.RECIPIENT) is Scope.RECIPIENT
        assert getattr(caught.value, "suppress", status == 410) is (status == 410)

    async def test_an_endpoint_in_our_own_network_is_never_connected_to(self, server: Server, http: HttpClient) -> None:
        urls.allow_private_networks([])
        for to in (server.url, server.url.replace("http:", "https:"), f"https://localhost:{server.port}/"):
            with pytest.raises(RecipientRefused) as caught:
                await self.provider(http).send(self.outbound(server, to=to))
            assert caught.value.suppress is False
        assert server.connections == 0
