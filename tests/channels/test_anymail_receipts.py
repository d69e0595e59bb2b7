"""What ESPs report: whose reports are believed, and what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine

from channels.anymail import Anymail
from channels.anymail_esps import ESPS
from channels.base import Forged, InboundRequest, ReceiptKind, Unreadable
from tests.channels.anymail_accounts import TO, account
from tests.channels.anymail_reports import (
    ID,
    LOGIN,
    OTHER_SVIX,
    SIGNING,
    SVIX,
    URL,
    brevo,
    mailersend,
    mailgun,
    mailtrap,
    mandrill,
    postal,
    posted,
    postmark,
    resend,
    unisender_go,
)
from tests.channels.contract import MESSAGE_ID, Unused

#: The reports below are signed when this file is read, which may be long before their tests.
READ_AT = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _when_they_were_signed() -> Iterator[None]:
    with time_machine.travel(READ_AT):
        yield


def made(esp: str, **changes: str) -> Anymail:
    """The receiving side of an account; it gets no way out."""
    base_url = {"base_url": "https://mail.example"} if "base_url" in ESPS[esp].needs else {}
    return Anymail(Anymail.check({**account(esp), **base_url, **changes}), Unused())


SIGNED = {"signing_key": SIGNING}
GOOD: list[tuple[str, dict[str, str], InboundRequest]] = [
    ("postmark", {"webhook_secret": LOGIN}, postmark()),
    ("brevo", {"webhook_secret": LOGIN}, brevo()),
    ("mailgun", SIGNED, mailgun()),
    ("mailersend", SIGNED, mailersend()),
    ("mandrill", SIGNED, mandrill()),
    ("mandrill", SIGNED | {"webhook_secret": LOGIN}, mandrill(url=URL.replace("://", f"://{LOGIN}@"), login=LOGIN)),
    ("mailtrap", SIGNED, mailtrap()),
    ("mailtrap", {"webhook_secret": LOGIN}, mailtrap("whatever", login=LOGIN)),
    ("unisender_go", {}, unisender_go()),
    ("resend", {"signing_key": SVIX}, resend()),
    ("resend", {"webhook_secret": LOGIN}, resend(OTHER_SVIX, login=LOGIN)),
    ("resend", {"signing_key": SVIX, "webhook_secret": LOGIN}, resend(login=LOGIN)),
]
FORGED: list[tuple[str, dict[str, str], InboundRequest]] = [
    ("postmark", {"webhook_secret": LOGIN}, postmark(login="")),
    ("postmark", {"webhook_secret": LOGIN}, postmark(login="chaski:another")),
    ("postmark", {}, postmark()),
    ("brevo", {}, brevo()),
    ("mailgun", SIGNED, mailgun("another key")),
    ("mailgun", {}, mailgun()),
    ("mailgun", SIGNED | {"webhook_secret": LOGIN}, mailgun()),
    ("mailgun", SIGNED, posted(b"{}")),
    ("mailersend", SIGNED, mailersend("another key")),
    ("mandrill", SIGNED, mandrill("another key")),
    ("mandrill", SIGNED, mandrill(url=URL + "0")),
    ("mandrill", SIGNED, posted(b"")),
    ("mailtrap", SIGNED, mailtrap("another key")),
    ("mailtrap", SIGNED | {"webhook_secret": LOGIN}, mailtrap()),
    ("mailtrap", {"webhook_secret": LOGIN}, mailtrap()),
    ("mailtrap", {}, mailtrap()),
    ("unisender_go", {}, unisender_go("another key")),
    ("resend", {"signing_key": SVIX}, resend(OTHER_SVIX)),
    ("resend", {"signing_key": SVIX, "webhook_secret": LOGIN}, resend()),
    ("resend", {}, resend()),
    (
        "resend",
        {"signing_key": SVIX},
        posted(b"{}", {"svix-signature": "v1,bogus", "svix-id": "1", "svix-timestamp": "x"}),
    ),
    ("postal", SIGNED, posted(b"{}", {"x-postal-signature": "AAAA"})),
    ("scaleway", {"webhook_secret": LOGIN}, posted(b"{}", login=LOGIN)),
]


@pytest.mark.parametrize(("esp", "secrets", "request_"), GOOD)
def test_what_the_esp_sent_is_believed_and_names_the_mail(
    esp: str, secrets: dict[str, str], request_: InboundRequest
) -> None:
    provider = made(esp, **secrets)
    provider.verify(request_)
    [receipt] = provider.parse(request_)
    assert receipt.provider_message_id in (ID, "<1@relay>", f"<{MESSAGE_ID}@shop.example>")
    assert receipt.message_id == ("" if esp in ("mailersend", "resend") else MESSAGE_ID)
    assert receipt.kind is (ReceiptKind.UNDELIVERED if esp == "mandrill" else ReceiptKind.DELIVERED)
    assert receipt.at is not None
    assert TO not in receipt.detail


@pytest.mark.parametrize(("esp", "secrets", "request_"), FORGED)
def test_what_the_esp_did_not_send_is_forged(esp: str, secrets: dict[str, str], request_: InboundRequest) -> None:
    with pytest.raises(Forged) as caught:
        made(esp, **secrets).verify(request_)
    assert not [secret for secret in secrets.values() if secret in str(caught.value)]


def test_only_an_esp_that_tries_the_address_first_is_greeted() -> None:
    asked = InboundRequest("GET", URL, {}, {}, b"")
    assert made("unisender_go").greet(asked) == b""
    assert made("unisender_go").greet(unisender_go()) is None
    assert made("postmark").greet(asked) is None


def test_a_body_that_was_changed_on_the_way_is_forged() -> None:
    good = resend()
    changed = InboundRequest("POST", URL, good.headers, {}, good.body.replace(b"delivered", b"bounced"))
    with pytest.raises(Forged):
        made("resend", signing_key=SVIX).verify(changed)


@pytest.mark.parametrize(
    ("request_", "kind", "code"),
    [
        (brevo("request"), ReceiptKind.INFO, ""),
        (brevo("delivered"), ReceiptKind.DELIVERED, ""),
        (brevo("deferred"), ReceiptKind.INFO, ""),
        (brevo("hard_bounce"), ReceiptKind.UNDELIVERED, "bounced"),
        (brevo("blocked"), ReceiptKind.UNDELIVERED, "blocked"),
        (brevo("invalid_email"), ReceiptKind.UNDELIVERED, "invalid"),
        (brevo("opened"), ReceiptKind.INFO, ""),
        (brevo("click"), ReceiptKind.INFO, ""),
        (brevo("spam"), ReceiptKind.INFO, ""),
        (brevo("something new"), ReceiptKind.INFO, ""),
    ],
)
def test_an_event_becomes_a_receipt(request_: InboundRequest, kind: ReceiptKind, code: str) -> None:
    [receipt] = made("brevo", webhook_secret=LOGIN).parse(request_)
    assert (receipt.kind, receipt.code) == (kind, code)


def test_a_mail_that_was_sent_on_is_sent() -> None:
    [receipt] = made("resend", signing_key=SVIX).parse(resend(event="email.sent"))
    assert receipt.kind is ReceiptKind.SENT


def test_a_failure_says_why() -> None:
    [receipt] = made("brevo", webhook_secret=LOGIN).parse(brevo("hard_bounce", reason=f"550 no such user {TO}"))
    assert receipt.detail == "bounced: bounced: 550 no such user [recipient]"
    assert receipt.at == datetime(2025, 11, 27, 12, tzinfo=UTC)


def test_a_report_that_comes_twice_is_one_event_and_another_is_not() -> None:
    provider = made("brevo", webhook_secret=LOGIN)

    def event(request: InboundRequest) -> str:
        return provider.parse(request)[0].event_id

    assert event(brevo()) == event(brevo())
    others = [brevo(), brevo("deferred"), brevo(**{"message-id": "<2@relay>"}), brevo(ts_epoch=1764244801000)]
    assert len({event(request) for request in others}) == len(others)


def test_an_esp_with_ids_for_its_events_is_taken_at_its_word() -> None:
    provider = made("mailgun", signing_key=SIGNING)
    assert provider.parse(mailgun())[0].event_id == provider.parse(mailgun(timestamp=1764244900))[0].event_id


def test_one_post_may_tell_of_several_mails_and_of_none() -> None:
    provider = made("sparkpost", webhook_secret=LOGIN)
    event = {"type": "delivery", "transmission_id": "11", "event_id": "1", "timestamp": "1764244800"}
    told = [{"msys": {"message_event": {**event, "event_id": str(number)}}} for number in range(3)]
    found = provider.parse(posted(json.dumps([*told, {"msys": {}}]).encode(), login=LOGIN))
    assert [receipt.event_id for receipt in found] == ["delivered:0", "delivered:1", "delivered:2"]
    assert provider.parse(posted(b'[{"msys": {}}]', login=LOGIN)) == []


def test_a_report_that_names_no_mail_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        made("postmark", webhook_secret=LOGIN).parse(postmark(MessageID=None, Metadata={}))


def test_our_id_is_found_among_tags_where_the_esp_has_no_metadata() -> None:
    key, report = postal()
    provider = made("postal", signing_key=key)
    provider.verify(report)
    [receipt] = provider.parse(report)
    assert (receipt.message_id, receipt.kind) == (MESSAGE_ID, ReceiptKind.DELIVERED)
    with pytest.raises(Forged):
        made("postal", signing_key=postal()[0]).verify(report)


@pytest.mark.parametrize("esp", [esp for esp, row in ESPS.items() if row.view])
@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b'"text"', b"[" * 50_000, b'{"a": 1'])
def test_rubbish_is_unreadable(esp: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        made(esp, webhook_secret=LOGIN, signing_key=SIGNING).parse(posted(body, login=LOGIN))


@pytest.mark.parametrize(
    "changes",
    [
        {"DeliveredAt": "yesterday"},
        {"DeliveredAt": "2026-11-27T12:00:00"},
        {"Metadata": {"chaski_id": [1]}},
        {"Metadata": {"chaski_id": "no id"}},
        {"Details": "x" * 9_999, "MessageID": "m" * 9_999},
        {"Recipient": None},
    ],
)
def test_odd_fields_make_an_odd_receipt_and_no_trouble(changes: dict[str, Any]) -> None:
    [receipt] = made("postmark", webhook_secret=LOGIN).parse(postmark(**changes))
    assert receipt.at is None or receipt.at == datetime(2026, 11, 27, 12, tzinfo=UTC)
    assert len(receipt.detail) <= 500
    assert len(receipt.event_id) <= 200
