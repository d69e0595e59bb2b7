"""Messenger and Instagram by Meta's Send API: what is asked for, what its codes mean, and what it reports."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from channels.base import (
    ContentRefused,
    Forged,
    InboundRequest,
    InvalidOption,
    Misconfigured,
    NotAllowedNow,
    Outbound,
    ReceiptKind,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.graph_messages import CODES
from channels.http import HttpClient
from channels.instagram import Instagram
from channels.messenger import Messenger
from tests.channels.contract import attachment
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

MID = "m_AG5Hz2Uq7tuwNEhXfYYKj8mJEM_QPpz5jdCK48PnKAjSdjfipqxqMvK8ma6AC8fplwlqLP_5cgXIbu7I3rBN0P"
SECRET, WORD = "secret-of-the-app", "word-of-the-form"


def no(status: int, code: int, subcode: int | None = None) -> bytes:
    """Meta's refusal."""
    error: dict[str, Any] = {"message": "(#1) no", "type": "OAuthException", "code": code, "fbtrace_id": "x"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return answer(status, json.dumps({"error": error}).encode())


def signed(body: bytes, secret: str = SECRET) -> InboundRequest:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": f"sha256={digest}"}
    return InboundRequest("POST", "https://chaski.example/receipts/1", headers, {}, body)


def report(page: str, *events: dict[str, Any]) -> bytes:
    """What Meta posts."""
    entry = {"id": "1", "time": 1458692752478, "messaging": list(events)}
    return json.dumps({"object": page, "entry": [entry]}).encode()


class TestMessenger(HttpContract):
    provider = Messenger
    channel = "messenger"
    to = "24862193450078"
    settings = {"page_id": "104501234567890", "token": "EAAtoken", "app_secret": SECRET, "verify_token": WORD}
    accepted_body = json.dumps({"recipient_id": "24862193450078", "message_id": MID}).encode()
    provider_message_id = MID

    async def sent(self, server: Server, http: HttpClient, **changes: Any) -> tuple[bytes, dict[str, Any]]:
        server.script = answers(self.accepted)
        await self.at(server.url, http).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, json.loads(body)

    async def test_a_text_answers_the_person(self, server: Server, http: HttpClient) -> None:
        head, asked = await self.sent(server, http, text="¡Hola! 👋")
        assert head.startswith(b"POST /104501234567890/messages HTTP/1.1\r\n")
        assert b"Authorization: Bearer EAAtoken" in head
        assert asked == {
            "recipient": {"id": "24862193450078"},
            "messaging_type": "RESPONSE",
            "message": {"text": "¡Hola! 👋"},
        }

    async def test_a_person_may_write_for_seven_days(self, server: Server, http: HttpClient) -> None:
        _, asked = await self.sent(server, http, options={"human_agent": True})
        assert (asked["messaging_type"], asked["tag"]) == ("MESSAGE_TAG", "HUMAN_AGENT")

    @pytest.mark.parametrize(
        ("options", "attachment"),
        [
            (
                {"image_url": "https://s.example/a.jpg"},
                {"type": "image", "payload": {"url": "https://s.example/a.jpg"}},
            ),
            ({"file_url": "https://s.example/a.pdf"}, {"type": "file", "payload": {"url": "https://s.example/a.pdf"}}),
            ({"template": {"template_type": "button"}}, {"type": "template", "payload": {"template_type": "button"}}),
        ],
    )
    async def test_a_file_goes_by_its_url(
        self, options: dict[str, Any], attachment: dict[str, Any], server: Server, http: HttpClient
    ) -> None:
        _, asked = await self.sent(server, http, text="", options=options)
        assert asked["message"] == {"attachment": attachment}

    @pytest.mark.parametrize(
        ("content_type", "kind"), [("image/png", "image"), ("application/pdf", "file"), ("video/mp4", "video")]
    )
    async def test_an_attachment_goes_by_its_url(
        self, content_type: str, kind: str, server: Server, http: HttpClient
    ) -> None:
        given = attachment(content_type)
        _, asked = await self.sent(server, http, text="", attachments=(given,))
        assert asked["message"] == {"attachment": {"type": kind, "payload": {"url": given.url}}}

    def test_an_attachment_and_a_text_are_two_messages(self) -> None:
        refused = Messenger.refuse(self.outbound(attachments=(attachment("image/png"),)))
        assert "message of its own" in refused["text"]

    async def test_quick_replies_go_with_the_text(self, server: Server, http: HttpClient) -> None:
        replies = [{"content_type": "text", "title": "Yes", "payload": "YES"}]
        _, asked = await self.sent(server, http, options={"quick_replies": replies})
        assert asked["message"]["quick_replies"] == replies

    @pytest.mark.parametrize(
        ("status", "code", "subcode", "expected", "shown"),
        [
            (400, 10, 2018278, NotAllowedNow, "10/2018278"),
            (400, 10, 2018108, RecipientRefused, "10/2018108"),
            (400, 10, 1, Misconfigured, "10"),
            (400, 100, 2018001, RecipientRefused, "100/2018001"),
            (400, 100, 2018047, ContentRefused, "100/2018047"),
            (400, 100, None, ContentRefused, "100"),
            (400, 551, 1545041, RecipientRefused, "551"),
            (400, 613, None, Throttled, "613"),
            (400, 4, 2018022, Throttled, "4/2018022"),
            (400, 1200, None, Transient, "1200"),
            (500, 2, None, Transient, "2"),
            (400, 190, 463, Misconfigured, "190"),
            (403, 298, None, Misconfigured, "298"),
            (400, 987_654, None, ContentRefused, "987654"),
        ],
    )
    async def test_a_refusal_is_classed_by_its_code_and_subcode(
        self,
        status: int,
        code: int,
        subcode: int | None,
        expected: type[SendError],
        shown: str,
        server: Server,
        http: HttpClient,
    ) -> None:
        error = await self.failed(server, http, answers(no(status, code, subcode)))
        assert (type(error), error.code) == (expected, shown)

    def test_what_does_not_go_together_is_refused_at_the_door(self) -> None:
        assert Messenger.refuse(self.outbound(text="x" * 2000)) == {}
        assert "2,000" in Messenger.refuse(self.outbound(text="x" * 2001))["text"]
        image = {"image_url": "https://s.example/a.jpg"}
        assert Messenger.refuse(self.outbound(text="", options=image)) == {}
        assert "must be empty" in Messenger.refuse(self.outbound(text="Look", options=image))["text"]
        both = self.outbound(text="", options={**image, "template": {"a": 1}})
        assert "options.template" in Messenger.refuse(both)
        assert "text" in Messenger.refuse(self.outbound(text=""))

    def test_delivery_is_told_of_each_message(self) -> None:
        told = {"timestamp": 1458668856253, "delivery": {"mids": [MID, "m_2", 7, "no id"], "watermark": 1458668856253}}
        found = self.made().parse(signed(report("page", told)))
        assert [(each.provider_message_id, each.kind) for each in found] == [
            (MID, ReceiptKind.DELIVERED),
            ("m_2", ReceiptKind.DELIVERED),
        ]
        assert found[0].at == datetime(2016, 3, 22, 17, 47, 36, 253000, tzinfo=UTC)
        assert found[0].event_id != found[1].event_id

    def test_what_is_no_receipt_of_a_message_is_passed_over(self) -> None:
        events = [
            {"read": {"watermark": 1458668856253}},
            {"message": {"mid": MID, "text": "hi", "is_echo": True}},
            {"delivery": "?"},
            {},
        ]
        assert self.made().parse(signed(report("page", *events))) == []

    def test_only_what_the_app_has_signed_is_believed(self) -> None:
        body = report("page")
        self.made().verify(signed(body))
        with pytest.raises(Forged):
            self.made().verify(signed(body, "another"))

    def test_an_id_that_would_lead_elsewhere_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match="page_id"):
            Messenger.check({**self.settings, "page_id": "me/../other"})

    def test_each_code_has_words_for_people(self) -> None:
        assert all(len(code.text) > 10 for _, code in CODES.items())


class TestInstagram(HttpContract):
    provider = Instagram
    channel = "instagram"
    to = "17841400000000000"
    settings = {"instagram_id": "17841405822304914", "token": "IGtoken", "app_secret": SECRET, "verify_token": WORD}
    accepted_body = json.dumps(
        {"recipient_id": "17841400000000000", "message_id": "aWdfZAG1faXRlbToxOklHTWVzc2FnZA"}
    ).encode()
    provider_message_id = "aWdfZAG1faXRlbToxOklHTWVzc2FnZA"

    def test_the_limit_is_in_bytes(self) -> None:
        assert Instagram.refuse(self.outbound(text="ñ" * 500)) == {}
        assert "1,000 bytes" in Instagram.refuse(self.outbound(text="ñ" * 501))["text"]

    def test_reading_is_told_of_a_message(self) -> None:
        told = {"timestamp": 1458668856253, "read": {"mid": "aWdfZAG1"}}
        [found] = self.made().parse(signed(report("instagram", told)))
        assert (found.kind, found.provider_message_id) == (ReceiptKind.READ, "aWdfZAG1")

    def test_it_has_an_address_of_its_own(self) -> None:
        assert Instagram.check(self.settings)["base_url"].startswith("https://graph.instagram.com/")

    def test_an_unusual_kind_of_message_is_the_same_as_on_messenger(self) -> None:
        outbound = Outbound(message_id="1", channel="instagram", to="1", text="", options={"audio_url": 5})
        assert "options.audio_url" in Instagram.refuse(outbound)
