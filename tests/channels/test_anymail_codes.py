"""The error codes of the ESPs: each in an answer as the ESP writes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from channels.anymail import Anymail
from channels.anymail_esps import ESPS
from channels.base import (
    ContentRefused,
    Misconfigured,
    Outbound,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from tests.channels.anymail_accounts import TO, account
from tests.channels.contract import MESSAGE_ID
from tests.channels.wire import Server, answer, answers

#: Said in words alone.
WORDS = {
    "brevo": {"invalid_to": "email is not valid in to"},
    "mailgun": {
        "invalid_to": "'to' parameter is not a valid address. please check documentation",
        "sandbox": "Sandbox subdomains are for test purposes only.",
    },
    "postmark": {"invalid_to": "Invalid 'To' address: 'nobody'."},
    "sparkpost": {"suppressed": "recipient address suppressed due to customer policy"},
}
#: ESP -> (status, body) of a refusal with a code and words.
SAYS: Mapping[str, Callable[[str, str], tuple[int, Any]]] = {
    "brevo": lambda code, said: (400, {"code": code, "message": said}),
    "mailersend": lambda code, said: (422, {"message": f"The from.email is not good. #{code}", "errors": {}}),
    "mailgun": lambda code, said: (400, {"message": said}),
    "mailjet": lambda code, said: (
        400,
        {"Messages": [{"Status": "error", "Errors": [{"ErrorCode": code, "StatusCode": 400, "ErrorMessage": said}]}]},
    ),
    "mandrill": lambda code, said: (500, {"status": "error", "code": -1, "name": code, "message": said}),
    "postal": lambda code, said: (200, {"status": "error", "data": {"code": code, "message": said}}),
    "postmark": lambda code, said: (422, {"ErrorCode": int(code) if code.isdigit() else 300, "Message": said}),
    "resend": lambda code, said: (422, {"statusCode": 422, "name": code, "message": said}),
    "scaleway": lambda code, said: (400, {"type": code, "message": said}),
    "sparkpost": lambda code, said: (420, {"errors": [{"code": code, "message": "failed", "description": said}]}),
    "unisender_go": lambda code, said: (400, {"status": "error", "code": 204, "failed_emails": {TO: code}}),
}
#: Said of the recipient in an answer that is a success otherwise.
OF_RECIPIENTS: Mapping[str, tuple[str, Callable[[str], tuple[int, Any]]]] = {
    "mailersend": (
        "hard_bounced spam_complaint unsubscribed blocklisted",
        lambda code: (
            202,
            {"warnings": [{"type": "ALL_SUPPRESSED", "recipients": [{"email": TO, "reasons": [code]}]}]},
        ),
    ),
    "mandrill": (
        "hard-bounce spam unsub soft-bounce custom invalid rule invalid-sender unsigned test-mode-limit",
        lambda code: (200, [{"email": TO, "status": "rejected", "_id": "1", "reject_reason": code}]),
    ),
}
EXPECTED: Mapping[str, Mapping[type[SendError], str]] = {
    "brevo": {
        Throttled: "too_many_requests",
        RecipientRefused: "invalid_to",
        ContentRefused: "invalid_parameter missing_parameter out_of_range not_acceptable",
        Misconfigured: "unauthorized not_enough_credits permission_denied account_under_validation",
    },
    "mailersend": {
        RecipientRefused: "hard_bounced! spam_complaint! unsubscribed! blocklisted",
        Misconfigured: "MS42207 MS42225",
    },
    "mailgun": {RecipientRefused: "invalid_to", Misconfigured: "sandbox"},
    "mailjet": {RecipientRefused: "mj-0013", Misconfigured: "send-0008"},
    "mailtrap": {},
    "mandrill": {
        Transient: "GeneralError ServiceUnavailable",
        RecipientRefused: "hard-bounce! spam! unsub! soft-bounce custom invalid",
        ContentRefused: "ValidationError rule",
        Misconfigured: "Invalid_Key PaymentRequired PoorReputation Unknown_Subaccount invalid-sender unsigned"
        " test-mode-limit",
    },
    "postal": {
        ContentRefused: "parameter-error ValidationError NoContent NoRecipients",
        Misconfigured: "AccessDenied InvalidServerAPIKey ServerSuspended FromAddressMissing UnauthenticatedFromAddress",
    },
    "postmark": {
        Throttled: "100 429",
        RecipientRefused: "invalid_to 406!",
        ContentRefused: "300 402 403 409 410 411",
        Misconfigured: "10 400 401 405 412 413",
    },
    "resend": {
        Throttled: "rate_limit_exceeded daily_quota_exceeded",
        Transient: "concurrent_idempotent_requests application_error internal_server_error",
        ContentRefused: "invalid_idempotent_request invalid_idempotency_key invalid_parameter missing_required_field"
        " security_error",
        Misconfigured: "missing_api_key invalid_api_key restricted_api_key invalid_from_address monthly_quota_exceeded",
    },
    "scaleway": {
        Throttled: "too_many_requests",
        Transient: "transient_state",
        ContentRefused: "invalid_arguments",
        Misconfigured: "denied_authentication permissions_denied quotas_exceeded",
    },
    "sparkpost": {
        Throttled: "2101 2102",
        RecipientRefused: "suppressed!",
        ContentRefused: "1300 1400 1902",
        Misconfigured: "1100 1303 2103 7001",
    },
    "unisender_go": {
        Transient: "temporary_unavailable",
        RecipientRefused: "unsubscribed! permanent_unavailable! invalid",
    },
}


def rows() -> Iterator[tuple[str, str, type[SendError], bool]]:
    """(ESP, code, what it means, whether the recipient is suppressed), the last marked by ! above."""
    for esp, meanings in EXPECTED.items():
        for error, codes in meanings.items():
            for code in codes.split():
                yield esp, code.rstrip("!"), error, code.endswith("!")


def refusal(esp: str, code: str) -> bytes:
    """How ``esp`` says ``code``."""
    of_recipients, says = OF_RECIPIENTS.get(esp, ("", None))
    if says and code in of_recipients.split():
        status, body = says(code)
    else:
        status, body = SAYS[esp](code, WORDS.get(esp, {}).get(code, "no"))
    return answer(status, json.dumps(body).encode(), "Content-Type: application/json")


def test_each_code_of_each_table_is_tried_and_has_words_for_people() -> None:
    assert set(EXPECTED) == set(ESPS)
    for esp, row in ESPS.items():
        assert {code for code, _ in row.codes.items()} == {code for each, code, _, _ in rows() if each == esp}, esp
        assert all(len(code.text) > 10 for _, code in row.codes.items())
        assert row.codes.page.startswith("https://")


@pytest.mark.parametrize(("esp", "code", "expected", "suppress"), list(rows()))
async def test_a_code_means_what_the_table_says(
    esp: str, code: str, expected: type[SendError], suppress: bool, server: Server, http: HttpClient
) -> None:
    server.script = answers(refusal(esp, code))
    provider = Anymail(Anymail.check({**account(esp), "base_url": server.url}), http)
    with pytest.raises(SendError) as caught:
        await provider.send(Outbound(message_id=MESSAGE_ID, channel="email", to=TO, text="Hello"))
    assert (type(caught.value), caught.value.code) == (expected, code)
    assert getattr(caught.value, "suppress", False) is suppress


@pytest.mark.parametrize(
    ("esp", "code", "wait"),
    [("postmark", "100", 300), ("resend", "daily_quota_exceeded", 3600), ("sparkpost", "2102", 3600)],
)
async def test_a_quota_waits_for_a_new_one(esp: str, code: str, wait: float, server: Server, http: HttpClient) -> None:
    server.script = answers(refusal(esp, code))
    provider = Anymail(Anymail.check({**account(esp), "base_url": server.url}), http)
    with pytest.raises(Throttled) as caught:
        await provider.send(Outbound(message_id=MESSAGE_ID, channel="email", to=TO, text="Hello"))
    assert caught.value.retry_after == wait
