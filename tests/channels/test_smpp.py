"""SMS by SMPP, the worker's side: what the gateway is asked, what its answers mean, and what it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.base import (
    ContentRefused,
    Forged,
    InboundRequest,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    Reply,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.http import HttpClient
from channels.smpp import Smpp
from channels.smpp_codes import CODES
from channels.smpp_gateway.exchange import (
    Address,
    Answer,
    Delivered,
    Outcome,
    Purpose,
    Report,
    Submission,
    Taken,
    account_key,
    is_signed,
    read,
    signature,
    written,
)
from tests.channels.contract import MESSAGE_ID
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

SECRET = "shared by gateway and Chaski"
RECEIPTS = "https://chaski.example/receipts/1"


def said(outcome: Outcome, **fields: Any) -> bytes:
    return answer(200, written(Answer(outcome, **fields)))


def report(told: Report, secret: str = SECRET, purpose: Purpose = Purpose.REPORT) -> InboundRequest:
    body = written(told)
    headers = {"x-chaski-signature": signature(secret, purpose, body)}
    return InboundRequest("POST", RECEIPTS, headers, {}, body)


class TestSmpp(HttpContract):
    provider = Smpp
    channel = "sms"
    to = "+56912345678"
    settings = {
        "host": "smsc.vendor.example",
        "system_id": "shop",
        "password": "s3cret-1",
        "from": "Shop",
        "gateway_secret": SECRET,
    }
    accepted_body = json.dumps({"outcome": "accepted", "provider_message_id": "id-77"}).encode()
    provider_message_id = "id-77"

    async def sent(
        self, server: Server, http: HttpClient, account: dict[str, str] | None = None, **changes: Any
    ) -> Any:
        """(head, body, submission) of the request that a message makes."""
        server.script = answers(self.accepted)
        await self.made(http, base_url=server.url, **(account or {})).send(self.outbound(**changes))
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        return head, body, read(body, Submission)

    async def test_the_gateway_is_asked_in_the_accounts_name(self, server: Server, http: HttpClient) -> None:
        head, body, asked = await self.sent(server, http, receipts_url=RECEIPTS)
        assert head.startswith(b"POST /submit HTTP/1.1\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        key = account_key(Smpp.check({**self.settings, "base_url": server.url}), RECEIPTS)
        assert fields["X-Chaski-Account"] == key
        assert is_signed(SECRET, Purpose.SUBMIT, body, fields["X-Chaski-Signature"])
        assert (asked.message_id, asked.source, asked.destination) == (
            MESSAGE_ID,
            Address("Shop", 5, 0),
            Address("56912345678", 1, 1),
        )
        assert (asked.parts, asked.data_coding, asked.validity) == ((b"Your order is on its way.",), 0, "")

    async def test_a_long_text_has_the_same_reference_on_every_attempt(self, server: Server, http: HttpClient) -> None:
        first = (await self.sent(server, http, text="x" * 400))[2].parts
        again = (await self.sent(server, http, text="x" * 400, attempt=2))[2].parts
        assert len(first) == 3
        assert first == again
        assert first[0][3] == 0xAB

    @pytest.mark.parametrize(
        ("sender", "address"),
        [
            ("+56912345678", Address("56912345678", 1, 1)),
            ("56912345678", Address("56912345678", 1, 1)),
            ("12345", Address("12345", 3, 0)),
            ("My Shop", Address("My Shop", 5, 0)),
        ],
    )
    async def test_type_and_plan_follow_from_the_sender(
        self, sender: str, address: Address, server: Server, http: HttpClient
    ) -> None:
        assert (await self.sent(server, http, {"from": sender}))[2].source == address
        assert (await self.sent(server, http, options={"from": sender}))[2].source == address
        told = {"from": sender, "from_ton_npi": "0/1"}
        assert (await self.sent(server, http, told))[2].source == Address(address.digits, 0, 1)

    async def test_a_validity_is_a_relative_time(self, server: Server, http: HttpClient) -> None:
        asked = (await self.sent(server, http, options={"validity_seconds": 93_784}))[2]
        assert asked.validity == "000001020304000R"

    @pytest.mark.parametrize("code", [code for code, _ in CODES.items()])
    async def test_every_refusal_is_what_the_table_says(self, code: str, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(said(Outcome.REFUSED, status=int(code, 16))))
        known = dict(CODES.items())[code]
        assert (type(error), error.code, error.unmapped) == (known.error, code, False)
        assert len(known.text) > 10

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (0x58, Throttled),
            (0x14, Throttled),
            (0x08, Transient),
            (0x0B, RecipientRefused),
            (0x0A, Misconfigured),
            (0x01, ContentRefused),
        ],
    )
    async def test_what_a_status_means(
        self, status: int, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(said(Outcome.REFUSED, status=status)))
        assert type(error) is expected
        assert not isinstance(error, Throttled) or error.retry_after == 1.0

    @pytest.mark.parametrize("status", [0x0A, 0x48, 0x49])
    async def test_a_sender_of_the_messages_own_stops_no_account(
        self, status: int, server: Server, http: HttpClient
    ) -> None:
        server.script = answers(said(Outcome.REFUSED, status=status))
        with pytest.raises(ContentRefused) as error:
            await self.at(server.url, http).send(self.outbound(options={"from": "Promo"}))
        assert error.value.code == f"0x{status:02X}"

    async def test_a_vendors_own_code_is_counted(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(said(Outcome.REFUSED, status=0x410)))
        assert (type(error), error.code, error.unmapped) == (Transient, "0x0410", True)

    async def test_a_message_of_which_some_parts_were_taken_is_in_doubt(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(said(Outcome.REFUSED, status=0x58, taken=2)))
        assert (type(error), error.code) == (InDoubt, "partly_taken")
        assert "0x58" in error.detail

    @pytest.mark.parametrize(
        ("fields", "expected", "code"),
        [
            ({"outcome": Outcome.NOT_SENT, "code": "not_bound"}, NotSent, "not_bound"),
            ({"outcome": Outcome.BUSY, "code": "window_full"}, Throttled, "window_full"),
            ({"outcome": Outcome.IN_DOUBT, "code": "connection_lost"}, InDoubt, "connection_lost"),
            ({"outcome": Outcome.BIND_REFUSED, "status": 0x0E}, Misconfigured, "0x0E"),
            ({"outcome": Outcome.BIND_REFUSED, "status": 0x0F}, Misconfigured, "0x0F"),
            ({"outcome": Outcome.BIND_REFUSED, "status": 0x05}, NotSent, "bind_0x05"),
            ({"outcome": Outcome.BIND_REFUSED, "status": 0x0D}, NotSent, "bind_0x0D"),
            ({"outcome": Outcome.BIND_REFUSED, "status": 0x999}, NotSent, "bind_0x0999"),
        ],
    )
    async def test_what_the_gateway_knows_is_believed(
        self, fields: dict[str, Any], expected: type[SendError], code: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(said(**fields)))
        assert (type(error), error.code) == (expected, code)
        if fields["outcome"] is Outcome.BIND_REFUSED:
            assert "system_id" in error.detail

    async def test_an_id_is_kept_in_the_form_of_the_receipts(self, server: Server, http: HttpClient) -> None:
        server.script = answers(said(Outcome.ACCEPTED, provider_message_id="0AF3"))
        provider = self.made(http, base_url=server.url, id_form="hex/decimal")
        assert (await provider.send(self.outbound())).provider_message_id == "2803"
        told = Delivered(Address("1"), Address("2"), 4, message=b"id:2803 stat:DELIVRD err:000")
        (receipt,) = provider.parse(report(Report("e1", told)))
        assert isinstance(receipt, Receipt)
        assert receipt.provider_message_id == "2803"

    def test_what_an_sms_cannot_carry_is_refused_at_the_door(self) -> None:
        assert Smpp.refuse(self.outbound(text="x" * 1530)) == {}
        assert "1,530" in Smpp.refuse(self.outbound(text="x" * 1531))["text"]
        assert "1,530" in Smpp.refuse(self.outbound(text="€" * 766))["text"]
        assert "670" in Smpp.refuse(self.outbound(text="ж" * 671))["text"]
        assert "whole characters" in Smpp.refuse(self.outbound(text="half \ud83d"))["text"]
        assert "options.validity_seconds" in Smpp.refuse(self.outbound(options={"validity_seconds": 5}))
        assert "options.from" in Smpp.refuse(self.outbound(options={"from": "a name that is too long"}))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("from", "too long a name"),
            ("from", "Ñandú"),
            ("from_ton_npi", "5"),
            ("port", "0"),
            ("port", "65536"),
            ("binds", "9"),
            ("window", "x"),
            ("id_form", "hex"),
            ("security", "starttls"),
            ("system_id", "sixteen-letters-"),
            ("system_id", "with blank"),
            ("host", "smsc.example/path"),
            ("gateway_secret", "too short"),
        ],
    )
    def test_an_option_that_smpp_has_no_room_for_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Smpp.check({**self.settings, name: value})
        assert caught.value.name == name

    def test_another_password_is_another_account_to_the_gateway(self) -> None:
        settings = Smpp.check(self.settings)
        keys = {
            account_key({**settings, **changed}, RECEIPTS)
            for changed in ({}, {"password": "other"}, {"port": "2776"}, {"gateway_secret": "x" * 16})
        }
        assert len(keys | {account_key(settings, "https://chaski.example/receipts/2")}) == 5
        assert account_key({**settings, "from": "Other"}, RECEIPTS) in keys

    def test_a_receipt_and_a_reply_come_by_the_gateway(self, http: HttpClient) -> None:
        provider = self.made(http)
        delivered = Delivered(
            Address("56912345678", 1, 1), Address("Shop"), 4, message=b"id:id-77 stat:DELIVRD err:000"
        )
        request = report(Report("e1", delivered))
        provider.verify(request)
        (receipt,) = provider.parse(request)
        assert isinstance(receipt, Receipt)
        assert (receipt.kind, receipt.provider_message_id) == (ReceiptKind.DELIVERED, "id-77")
        reply = report(Report("e2", Delivered(Address("56912345678", 1, 1), Address("Shop"), message=b"Hola")))
        assert provider.parse(reply) == [Reply("reply:e2", "+56912345678", "Hola")]

    def test_an_answer_that_came_late_settles_the_doubt(self, http: HttpClient) -> None:
        (receipt,) = self.made(http).parse(report(Report("e1", taken=Taken(MESSAGE_ID, "id-9"))))
        assert isinstance(receipt, Receipt)
        assert (receipt.kind, receipt.message_id, receipt.provider_message_id) == (ReceiptKind.SENT, MESSAGE_ID, "id-9")

    def test_what_was_signed_by_another_secret_or_for_something_else_is_forged(self, http: HttpClient) -> None:
        told = Report("e1", taken=Taken(MESSAGE_ID, "id-9"))
        for request in (report(told, "another secret of some length"), report(told, purpose=Purpose.SUBMIT)):
            with pytest.raises(Forged):
                self.made(http).verify(request)

    @pytest.mark.parametrize("told", [Report("e1"), Report("e1", taken=Taken("no id", "id-9"))])
    def test_a_report_of_nothing_is_unreadable(self, told: Report, http: HttpClient) -> None:
        with pytest.raises(Unreadable):
            self.made(http).parse(report(told))
