"""What people write, as each vendor reports it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from channels.base import Forged, InboundRequest, Provider, Receipt, Unreadable
from channels.inbound import Reply
from channels.instagram import Instagram
from channels.messenger import Messenger
from channels.telegram import Telegram
from channels.twilio import Twilio
from channels.vonage import Vonage
from channels.whatsapp_cloud import WhatsAppCloud
from channels.x import X
from tests.channels.contract import Unused

AT = datetime(2026, 11, 27, 12, 0, 1, tzinfo=UTC)
EPOCH = int(AT.timestamp())
SID = "SM" + "0" * 32
META = {"token": "EAAtoken", "app_secret": "s", "verify_token": "w"}


def made(cls: type[Provider], **settings: str) -> Provider:
    return cls(cls.check(settings), Unused())


WHATSAPP = made(WhatsAppCloud, phone_number_id="1", **META)
MESSENGER = made(Messenger, page_id="1", **META)
INSTAGRAM = made(Instagram, instagram_id="1", **META)
TWILIO = made(Twilio, account_sid="AC" + "0" * 32, auth_token="t", from_number="+15005550006")
TELEGRAM = made(Telegram, token="1:abcdef", webhook_secret="s3cret")


def posted(body: Any, content_type: str = "application/json", **headers: str) -> InboundRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = "https://chaski.example/receipts/1"
    return InboundRequest("POST", url, {"content-type": content_type, **headers}, {}, raw)


def whatsapp(*messages: dict[str, Any], statuses: tuple[dict[str, Any], ...] = ()) -> InboundRequest:
    contacts = [{"wa_id": "56912345678", "profile": {"name": "Ana"}}]
    value = {"contacts": contacts, "messages": list(messages), "statuses": list(statuses)}
    return posted({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"value": value}]}]})


def from_ana(**fields: Any) -> dict[str, Any]:
    return {"from": "56912345678", "id": "wamid.A", "timestamp": str(EPOCH), **fields}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "text", "text": {"body": "¿Cuándo llega?"}}, {"text": "¿Cuándo llega?"}),
        (
            {"type": "image", "image": {"id": "77", "caption": "roto"}, "context": {"id": "wamid.B"}},
            {"text": "roto", "files": ("77",), "answers": "wamid.B"},
        ),
        ({"type": "button", "button": {"text": "Sí", "payload": "YES"}}, {"text": "Sí"}),
        ({"type": "interactive", "interactive": {"list_reply": {"id": "1", "title": "Martes"}}}, {"text": "Martes"}),
        ({"type": "reaction", "reaction": {"emoji": "👍"}}, {"text": "👍"}),
        ({"type": "unsupported"}, {}),
    ],
)
def test_whatsapp(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    [found] = WHATSAPP.parse(whatsapp(from_ana(**fields)))
    assert found == Reply("reply:wamid.A", "+56912345678", name="Ana", at=AT, **expected)


def test_a_report_of_whatsapp_tells_statuses_and_replies_and_leaves_out_what_is_garbled() -> None:
    odd: list[Any] = [from_ana(**{"from": 7}), from_ana(id=None), {"text": {"body": "x"}}]
    status = {"id": "wamid.C", "status": "read", "timestamp": str(EPOCH)}
    found = WHATSAPP.parse(whatsapp(*odd, from_ana(text="x"), statuses=(status,)))
    assert [type(each) for each in found] == [Receipt, Reply]


@pytest.mark.parametrize("provider", [MESSENGER, INSTAGRAM])
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"message": {"mid": "m_1", "text": "Hola"}}, {"text": "Hola"}),
        (
            {"message": {"mid": "m_1", "text": "x", "reply_to": {"mid": "m_0"}}},
            {"text": "x", "answers": "m_0"},
        ),
        (
            {"message": {"mid": "m_1", "attachments": [{"type": "image", "payload": {"url": "https://cdn/a"}}]}},
            {"files": ("https://cdn/a",)},
        ),
        ({"postback": {"mid": "m_1", "title": "Comprar", "payload": "BUY"}}, {"text": "Comprar"}),
    ],
)
def test_messenger_and_instagram(provider: Provider, event: dict[str, Any], expected: dict[str, Any]) -> None:
    told = {"sender": {"id": "24862"}, "recipient": {"id": "1"}, "timestamp": EPOCH * 1000, **event}
    [found] = provider.parse(posted({"object": "page", "entry": [{"id": "1", "messaging": [told]}]}))
    assert found == Reply("reply:m_1", "24862", at=AT, **expected)


@pytest.mark.parametrize(
    "message",
    [{"mid": "m_1", "text": "x", "is_echo": True}, {"mid": "m_1", "is_deleted": True}, {"text": "no id"}, "x"],
)
def test_what_the_page_wrote_itself_is_no_reply(message: Any) -> None:
    told = {"sender": {"id": "24862"}, "timestamp": EPOCH * 1000, "message": message}
    assert MESSENGER.parse(posted({"object": "page", "entry": [{"messaging": [told]}]})) == []


def test_twilio() -> None:
    form = {"MessageSid": SID, "SmsStatus": "received", "From": "+56912345678", "Body": "STOP", "NumMedia": "1"}
    body = urlencode({**form, "MediaUrl0": "https://api.twilio.com/m/1"}).encode()
    [found] = TWILIO.parse(posted(body, "application/x-www-form-urlencoded"))
    assert found == Reply(f"reply:{SID}", "+56912345678", "STOP", files=("https://api.twilio.com/m/1",))
    with pytest.raises(Unreadable):
        TWILIO.parse(posted(urlencode({"SmsStatus": "received", "From": "+1"}).encode()))


def test_vonage() -> None:
    vonage = made(Vonage, api_key="k", api_secret="s", **{"from": "Shop"})
    told = {"msisdn": "56912345678", "to": "15550100", "messageId": "A1", "text": "Hola", "type": "text"}
    [found] = vonage.parse(posted({**told, "message-timestamp": "2026-11-27 12:00:01"}))
    assert found == Reply("reply:A1", "+56912345678", "Hola", at=AT)


def test_x() -> None:
    x = made(X, consumer_key="k", consumer_secret="s", access_token="1-t", access_token_secret="ts")

    def event(sender: str) -> dict[str, Any]:
        made = {"target": {"recipient_id": "1"}, "sender_id": sender, "message_data": {"text": "Hola"}}
        return {"type": "message_create", "id": "77", "created_timestamp": str(EPOCH * 1000), "message_create": made}

    report = {"for_user_id": "1", "direct_message_events": [event("1"), event("42"), {"id": 7}, "x"]}
    assert x.parse(posted(report)) == [Reply("reply:77", "42", "Hola", at=AT)]
    assert x.parse(posted({"for_user_id": "1", "tweet_create_events": []})) == []


def update(**message: Any) -> dict[str, Any]:
    chat = {"id": 42, "type": "private"}
    return {"update_id": 7, "message": {"message_id": 9, "chat": chat, "date": EPOCH, **message}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "Hola", "from": {"id": 42, "first_name": "Ana"}}, {"text": "Hola", "name": "Ana"}),
        ({"text": "sí", "reply_to_message": {"message_id": 8}}, {"text": "sí", "answers": "42:8"}),
        (
            {"photo": [{"file_id": "small"}, {"file_id": "large"}], "caption": "roto"},
            {"text": "roto", "files": ("large",)},
        ),
        ({"document": {"file_id": "d"}}, {"files": ("d",)}),
    ],
)
def test_telegram(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    [found] = TELEGRAM.parse(posted(update(**fields)))
    assert found == Reply("update:7", "42", at=AT, **expected)


def test_other_updates_of_telegram_are_no_replies() -> None:
    assert TELEGRAM.parse(posted({"update_id": 7, "my_chat_member": {}})) == []
    for body in (b"x", b"[]", b'{"message": {}}'):
        with pytest.raises(Unreadable):
            TELEGRAM.parse(posted(body))


@pytest.mark.parametrize("secret", ["", "other", "s3cret\xff"])
def test_an_update_without_the_secret_is_forged(secret: str) -> None:
    header = {"x-telegram-bot-api-secret-token": secret}
    with pytest.raises(Forged):
        TELEGRAM.verify(posted(update(text="x"), **header))
    with pytest.raises(Forged):
        made(Telegram, token="1:abcdef").verify(posted(update(text="x"), **header))
    TELEGRAM.verify(posted(update(text="x"), **{"x-telegram-bot-api-secret-token": "s3cret"}))
