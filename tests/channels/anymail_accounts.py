"""An account at each ESP that anymail can write to, and how each ESP takes a mail, by its documentation."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from tests.channels.contract import MESSAGE_ID

TO = "ana@example.com"
KEY = "key-of-the-account"
#: What an ESP needs besides a key.
NEEDS = {"mailjet": {"secret_key": "its-secret"}, "scaleway": {"project_id": "project-1"}}
BASIC = {user: base64.b64encode(f"{user}:{secret}".encode()) for user, secret in (("api", KEY), (KEY, "its-secret"))}

#: ESP -> where the request goes, what of it is the account's, what it answers (status, body, header), and the id in that.
TAKEN: Mapping[str, tuple[str, bytes, int, Any, str, str]] = {
    "brevo": ("/smtp/email", b"api-key: key-", 201, {"messageId": "<2026.1@relay>"}, "", "<2026.1@relay>"),
    "mailersend": (
        "/email",
        b"Bearer key-",
        202,
        None,
        "X-Message-Id: 5e42957d51f1d94a1070a733",
        "5e42957d51f1d94a1070a733",
    ),
    "mailgun": (
        "/shop.example/messages",
        b"Basic " + BASIC["api"],
        200,
        {"id": "<1@shop.example>", "message": "Queued. Thank you."},
        "",
        "<1@shop.example>",
    ),
    "mailjet": (
        "/send",
        b"Basic " + BASIC[KEY],
        200,
        {"Messages": [{"Status": "success", "To": [{"Email": TO, "MessageID": 12345678}], "Cc": [], "Bcc": []}]},
        "",
        "12345678",
    ),
    "mailtrap": ("/send", b"key-", 200, {"success": True, "message_ids": ["0c7fd939"]}, "", "0c7fd939"),
    "mandrill": (
        "/messages/send.json",
        b'"key": "key-of-the-account"',
        200,
        [{"email": TO, "status": "sent", "_id": "abc123", "reject_reason": None}],
        "",
        "abc123",
    ),
    "postal": (
        "/api/v1/send/message",
        b"X-Server-API-Key: key-",
        200,
        {"status": "success", "data": {"message_id": "m@rp", "messages": {TO: {"id": 1503, "token": "x"}}}},
        "",
        "1503",
    ),
    "postmark": (
        "/email",
        b"X-Postmark-Server-Token: key-",
        200,
        {"To": TO, "MessageID": "b7bc2f4a", "ErrorCode": 0, "Message": "OK"},
        "",
        "b7bc2f4a",
    ),
    "resend": ("/emails", b"Idempotency-Key: " + MESSAGE_ID.encode(), 200, {"id": "49a3999c"}, "", "49a3999c"),
    "scaleway": (
        "/emails",
        b"X-Auth-Token: key-",
        200,
        {"emails": [{"id": "s-1", "mail_rcpt": TO, "status": "new"}]},
        "",
        "s-1",
    ),
    "sparkpost": (
        "/transmissions/",
        b"Authorization: key-",
        200,
        {"results": {"total_rejected_recipients": 0, "total_accepted_recipients": 1, "id": "1166"}},
        "",
        "1166",
    ),
    "unisender_go": (
        "/email/send.json",
        b"X-API-KEY: key-",
        200,
        {"status": "success", "job_id": "1ZymBc", "emails": [TO]},
        "",
        "",  # anymail makes one up
    ),
}


def account(esp: str) -> dict[str, str]:
    """The options of an account at ``esp``."""
    return {"esp": esp, "api_key": KEY, "from_email": "Shop <orders@shop.example>", **NEEDS.get(esp, {})}
