"""Reports as ESPs post them, signed by the ESPs' documentation and not by anymail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from channels.base import InboundRequest
from tests.channels.anymail_accounts import KEY, TO
from tests.channels.contract import MESSAGE_ID

URL = "https://chaski.example/receipts/7f1d"
LOGIN = "chaski:secret of the address"
SIGNING = "key that signs"
SVIX = "whsec_" + base64.b64encode(b"a secret of twenty-four bytes").decode()
OTHER_SVIX = "whsec_" + base64.b64encode(b"another secret of the same size").decode()
ID = "883953f4-6105-42a2-a16a-77a8eac79483"
DELIVERED = {
    "RecordType": "Delivery",
    "MessageID": ID,
    "Recipient": TO,
    "DeliveredAt": "2026-11-27T12:00:00Z",
    "Details": f"smtp;250 OK {TO}",
    "Metadata": {"chaski_id": MESSAGE_ID},
}


def posted(
    body: bytes, headers: Mapping[str, str] | None = None, login: str = "", kind: str = "json"
) -> InboundRequest:
    """A report as it comes."""
    form = "application/x-www-form-urlencoded" if kind == "form" else "application/json"
    basic = {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    return InboundRequest("POST", URL, {"content-type": form, **basic, **(headers or {})}, {}, body)


def postmark(login: str = LOGIN, **changes: Any) -> InboundRequest:
    return posted(json.dumps({**DELIVERED, **changes}).encode(), login=login)


def mailgun(key: str = SIGNING, event: str = "delivered", **more: Any) -> InboundRequest:
    signed = hmac.new(key.encode(), b"1764244800" + b"token-1", hashlib.sha256).hexdigest()
    told = {
        "signature": {"timestamp": "1764244800", "token": "token-1", "signature": signed},
        "event-data": {
            "event": event,
            "id": "e-1",
            "timestamp": 1764244800.5,
            "recipient": TO,
            "message": {"headers": {"message-id": f"{MESSAGE_ID}@shop.example"}},
            "user-variables": {"chaski_id": MESSAGE_ID},
            **more,
        },
    }
    return posted(json.dumps(told).encode())


def resend(key: str = SVIX, event: str = "email.delivered", login: str = "", **more: Any) -> InboundRequest:
    told = {"type": event, "created_at": "2026-11-27T12:00:00.000Z", "data": {"email_id": ID, "to": [TO], **more}}
    body, now = json.dumps(told), str(int(datetime.now(UTC).timestamp()))
    secret = base64.b64decode(key.removeprefix("whsec_"))
    signed = base64.b64encode(hmac.new(secret, f"msg_1.{now}.{body}".encode(), hashlib.sha256).digest()).decode()
    headers = {"svix-id": "msg_1", "svix-timestamp": now, "svix-signature": f"v1,{signed}"}
    return posted(body.encode(), headers, login)


def mandrill(key: str = SIGNING, url: str = URL, login: str = "") -> InboundRequest:
    message = {"email": TO, "metadata": {"chaski_id": MESSAGE_ID}, "diag": "smtp;550 5.1.1 unknown"}
    events = json.dumps([{"event": "hard_bounce", "_id": ID, "ts": 1764244800, "msg": message}])
    signed = hmac.new(key.encode(), f"{url}mandrill_events{events}".encode(), hashlib.sha1).digest()
    headers = {"x-mandrill-signature": base64.b64encode(signed).decode()}
    return posted(urlencode({"mandrill_events": events}).encode(), headers, login, "form")


def mailersend(key: str = SIGNING) -> InboundRequest:
    email = {"message": {"id": ID}, "recipient": {"email": TO}}
    data = {"type": "delivered", "id": "a-1", "created_at": "2026-11-27T12:00:00Z", "email": email}
    body = json.dumps({"type": "activity.delivered", "data": data}).encode()
    return posted(body, {"signature": hmac.new(key.encode(), body, hashlib.sha256).hexdigest()})


def mailtrap(key: str = SIGNING, login: str = "") -> InboundRequest:
    event = {"event": "delivery", "message_id": ID, "event_id": "e-1", "email": TO, "timestamp": 1764244800}
    body = json.dumps({"events": [{**event, "custom_variables": {"chaski_id": MESSAGE_ID}}]}).encode()
    return posted(body, {"mailtrap-signature": hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}, login)


def unisender_go(key: str = KEY) -> InboundRequest:
    data = {
        "metadata": {"chaski_id": MESSAGE_ID, "anymail_id": ID},
        "email": TO,
        "status": "delivered",
        "event_time": "2026-11-27 12:00:00",
    }
    events = [{"event_name": "transactional_email_status", "event_data": data}]
    told = json.dumps({"auth": "AUTH", "events_by_user": [{"user_id": 1, "events": events}]})
    signed = hashlib.md5(told.replace("AUTH", key).encode()).hexdigest()
    return posted(told.replace("AUTH", signed).encode())


def brevo(event: str = "delivered", **more: Any) -> InboundRequest:
    custom = json.dumps({"chaski_id": MESSAGE_ID})
    told = {
        "event": event,
        "email": TO,
        "message-id": "<1@relay>",
        "ts_epoch": 1764244800000,
        "X-Mailin-custom": custom,
    }
    return posted(json.dumps({**told, **more}).encode(), login=LOGIN)


def postal() -> tuple[str, InboundRequest]:
    """A new public key, and a report that it proves."""
    private = rsa.generate_private_key(65_537, 2048)
    message = {"id": 1503, "message_id": "m@rp", "to": TO, "tag": MESSAGE_ID}
    told = {"event": "MessageSent", "timestamp": 1764244800, "payload": {"status": "Sent", "message": message}}
    body = json.dumps(told).encode()
    signed = base64.b64encode(private.sign(body, padding.PKCS1v15(), SHA1())).decode()  # as Postal signs
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return "\n".join(public.strip().splitlines()[1:-1]), posted(body, {"x-postal-signature": signed})
