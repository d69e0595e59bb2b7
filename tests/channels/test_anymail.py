"""E-mail through anymail: what each ESP is asked for, and what its answers mean."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from channels.anymail import Anymail
from channels.anymail_esps import ESPS
from channels.base import (
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from channels.rates import Rate
from tests.channels.anymail_accounts import KEY, TAKEN, TO, account
from tests.channels.contract import MESSAGE_ID, attachment
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers


class TestAnymail(HttpContract):
    provider = Anymail
    channel = "email"
    to = TO
    settings = {**account("postmark"), "webhook_secret": "chaski:login-of-the-receipts"}
    message = {"subject": "Order 7"}
    accepted_body = json.dumps(TAKEN["postmark"][3]).encode()
    provider_message_id = "b7bc2f4a"

    async def sent(self, server: Server, http: HttpClient, esp: str, **changes: Any) -> tuple[str, bytes, bytes]:
        """The id that ``esp`` gave, and the request's head and body."""
        _, _, status, body, header, _ = TAKEN[esp]
        data = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: text/html" if body is None else "Content-Type: application/json"
        server.script = answers(answer(status, data, kind, *([header] if header else [])))
        provider = Anymail(Anymail.check({**account(esp), "base_url": server.url}), http)
        given = await provider.send(self.outbound(**changes))
        head, _, asked = server.requests[-1].partition(b"\r\n\r\n")
        return given.provider_message_id, head, asked

    async def refused(self, server: Server, http: HttpClient, esp: str, status: int, said: Any) -> SendError:
        server.script = answers(answer(status, json.dumps(said).encode(), "Content-Type: application/json"))
        provider = Anymail(Anymail.check({**account(esp), "base_url": server.url}), http)
        with pytest.raises(SendError) as caught:
            await provider.send(self.outbound())
        assert KEY not in str(caught.value)
        assert TO not in str(caught.value).lower()
        return caught.value

    def test_each_esp_is_tried(self) -> None:
        assert set(TAKEN) == set(ESPS)

    @pytest.mark.parametrize("esp", ESPS)
    async def test_each_esp_gets_the_mail_with_our_id_and_gives_its_own(
        self, esp: str, server: Server, http: HttpClient
    ) -> None:
        path, mark, *_, expected = TAKEN[esp]
        found, head, asked = await self.sent(server, http, esp)
        assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
        assert mark in head + asked
        assert head.lower().count(b"content-length:") == 1
        assert found == expected if expected else found
        for part in (b"orders", b"ana", b"example.com", b"Order"):
            assert part in asked
        assert (MESSAGE_ID.encode() in asked) is (esp != "mailersend")

    async def test_files_go_along_with_their_names_and_ids(self, server: Server, http: HttpClient) -> None:
        async def read() -> bytes:
            return b"\x00pdf"

        guide = replace(attachment("application/pdf", name="gu\u00eda.pdf"), read=read)
        logo = replace(attachment("image/png", name="logo.png"), read=read, content_id="logo@shop")
        _, _, asked = await self.sent(server, http, "postmark", attachments=(guide, logo))
        found = json.loads(asked)["Attachments"]
        assert [(each["Name"], each["ContentType"]) for each in found] == [
            ("gu\u00eda.pdf", "application/pdf"),
            ("logo.png", "image/png"),
        ]
        assert {each["Content"] for each in found} == {b64encode(b"\x00pdf").decode()}
        assert found[1]["ContentID"] == "cid:logo@shop"

    async def test_a_mail_to_postmark_holds_all_that_it_should(self, server: Server, http: HttpClient) -> None:
        options = {"reply_to": "Ana <answers@shop.example>", "headers": {"X-Order": "7"}}
        _, _, asked = await self.sent(server, http, "postmark", html="<p>On its way</p>", options=options)
        assert json.loads(asked) == {
            "From": "Shop <orders@shop.example>",
            "To": TO,
            "Subject": "Order 7",
            "ReplyTo": "Ana <answers@shop.example>",
            "Headers": [
                {"Name": "Message-ID", "Value": f"<{MESSAGE_ID}@shop.example>"},
                {"Name": "X-Order", "Value": "7"},
            ],
            "TextBody": "Your order is on its way.",
            "HtmlBody": "<p>On its way</p>",
            "Metadata": {"chaski_id": MESSAGE_ID},
        }

    async def test_html_alone_goes_without_a_text(self, server: Server, http: HttpClient) -> None:
        _, _, asked = await self.sent(server, http, "resend", text="", html="<p>¡Listo!</p>")
        told = json.loads(asked)
        assert (told["html"], "text" in told) == ("<p>¡Listo!</p>", False)

    async def test_a_repeat_is_the_same_request(self, server: Server, http: HttpClient) -> None:
        first = await self.sent(server, http, "resend")
        assert await self.sent(server, http, "resend", attempt=2) == first

    async def test_an_account_names_where_answers_go(self, server: Server, http: HttpClient) -> None:
        server.script = answers(self.accepted)
        await self.made(http, base_url=server.url, reply_to="desk@shop.example").send(self.outbound())
        assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["ReplyTo"] == "desk@shop.example"

    @pytest.mark.parametrize(
        ("esp", "said", "expected", "code"),
        [
            ("mandrill", [{"email": TO, "status": "rejected", "reject_reason": "spam"}], RecipientRefused, "spam"),
            ("mandrill", [{"email": TO, "status": "rejected", "reject_reason": "new"}], RecipientRefused, "rejected"),
            ("mandrill", [{"email": TO, "status": "invalid", "reject_reason": None}], RecipientRefused, "invalid"),
            ("mandrill", [], InDoubt, "unreadable_answer"),
            ("postal", {"status": "error", "data": {"code": "ServerSuspended"}}, Misconfigured, "ServerSuspended"),
            ("postal", {"status": "error", "data": {"code": "SomethingNew"}}, InDoubt, "unreadable_answer"),
            (
                "sparkpost",
                {
                    "results": {
                        "id": "1",
                        **TAKEN["sparkpost"][3]["results"],
                        "total_accepted_recipients": 0,
                        "total_rejected_recipients": 1,
                    }
                },
                RecipientRefused,
                "rejected",
            ),
            (
                "unisender_go",
                {"status": "success", "emails": [], "failed_emails": {TO: "temporary_unavailable"}},
                Transient,
                "temporary_unavailable",
            ),
            ("unisender_go", {"status": "success", "emails": [], "failed_emails": {TO: "new"}}, Transient, "failed"),
            ("resend", {"id": ""}, InDoubt, "unreadable_answer"),
            ("brevo", {"id": "1"}, InDoubt, "unreadable_answer"),
        ],
    )
    async def test_a_success_may_be_a_refusal(
        self, esp: str, said: Any, expected: type[SendError], code: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.refused(server, http, esp, 200, said)
        assert (type(error), error.code) == (expected, code)

    @pytest.mark.parametrize(
        ("esp", "status", "said", "expected", "code"),
        [
            ("resend", 403, {"name": "validation_error", "message": "not verified"}, Misconfigured, "validation_error"),
            ("resend", 422, {"name": "validation_error", "message": "no"}, ContentRefused, "validation_error"),
            (
                "resend",
                400,
                {"name": "validation_error", "message": "API key is invalid"},
                Misconfigured,
                "invalid_api_key",
            ),
            ("postmark", 422, {"ErrorCode": 777, "Message": "new"}, ContentRefused, "777"),
            ("mailgun", 404, {"message": "Domain not found: shop.example"}, Misconfigured, "http_404"),
            ("mailtrap", 400, {"success": False, "errors": ["'from' is missing"]}, ContentRefused, "http_400"),
        ],
    )
    async def test_what_no_table_knows_is_classed_by_its_status(
        self, esp: str, status: int, said: Any, expected: type[SendError], code: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.refused(server, http, esp, status, said)
        assert (type(error), error.code) == (expected, code)

    async def test_a_refusal_names_the_recipient_to_nobody(self, server: Server, http: HttpClient) -> None:
        said = {"ErrorCode": 406, "Message": f"Found inactive addresses: {TO.upper()}. Token {KEY}"}
        error = await self.refused(server, http, "postmark", 422, said)
        assert "Found inactive addresses: [recipient]. Token [secret]" in error.detail

    async def test_brevo_says_by_a_header_of_its_own_how_long_to_wait(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(429, b'{"code":"too_many_requests"}', "x-sib-ratelimit-reset: 12"))
        provider = Anymail(Anymail.check({**account("brevo"), "base_url": server.url}), http)
        with pytest.raises(Throttled) as caught:
            await provider.send(self.outbound())
        assert caught.value.retry_after == 12

    @pytest.mark.parametrize(
        ("esp", "changes", "expected"),
        [
            ("mailersend", {"to": "not an address"}, RecipientRefused),
            ("brevo", {"options": {"headers": {"X-Name": "Ñandú"}}}, ContentRefused),  # which Brevo would send broken
            ("postmark", {"options": {"headers": {"Bcc": "eva@example.com"}}}, ContentRefused),
        ],
    )
    async def test_what_cannot_become_a_request_is_refused_before_it(
        self, esp: str, changes: dict[str, Any], expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        provider = Anymail(Anymail.check({**account(esp), "base_url": server.url}), http)
        with pytest.raises(expected):
            await provider.send(self.outbound(**changes))
        assert server.requests == []

    @pytest.mark.parametrize("changes", [{"api_key": "clé-€"}, {"base_url": "https://[bad"}, {"sender_domain": "a/b"}])
    async def test_an_account_that_no_request_can_be_made_of_is_stopped(
        self, changes: dict[str, str], http: HttpClient
    ) -> None:
        provider = Anymail(Anymail.check({**account("mailgun"), **changes}), http)
        with pytest.raises(Misconfigured):
            await provider.send(self.outbound())

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"esp": "amazon_ses"}, "esp"),
            ({"esp": "../webhooks/base"}, "esp"),
            ({"esp": "mailjet"}, "secret_key"),
            ({"esp": "scaleway"}, "project_id"),
            ({"esp": "postal"}, "base_url"),
            ({"esp": "unisender_go"}, "base_url"),
            ({"base_url": "https://api.example/{region}/"}, "base_url"),
            ({"webhook_secret": "no-colon"}, "webhook_secret"),
            ({"from_email": "nobody"}, "from_email"),
            ({"from_email": "ñandú@shop.example"}, "from_email"),
            ({"reply_to": "a@b.example, c@d.example"}, "reply_to"),
        ],
    )
    def test_an_account_that_cannot_work_is_refused_by_name(self, changes: dict[str, str], name: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Anymail.check({**self.settings, **changes})
        assert caught.value.name == name

    def test_resend_has_a_pace_that_an_account_may_replace(self) -> None:
        assert Anymail.rates(account("resend")).account == Rate(2)
        assert Anymail.rates({**account("resend"), "rate": "10/s"}).account == Rate(10)
        assert Anymail.rates({**account("resend"), "rate": "none"}).account is None
        assert Anymail.rates(account("postmark")).account is None
