"""Receipts past Django, over a real socket: what is stored there, and that whatever is not plain is answered as ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.conf import settings

from channels.twilio import signature
from deliveries.models import Account, Receipt
from tests.api.server import Server
from tests.factories import make_account

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "the-auth-token"
FORM = {"MessageSid": "SM" + "0" * 32, "MessageStatus": "delivered"}
#: Only what Django answers has it.
BY_DJANGO = "Content-Type"


@pytest.fixture
def twilio() -> Account:
    return make_account(
        "sms",
        "twilio",
        options={"account_sid": "AC" + "0" * 32, "from_number": "+15550100"},
        secrets={"auth_token": TOKEN},
    )


def post(server: Server, account: Account, query: str = "", **changed: Any) -> Any:
    """A receipt as Twilio posts it, or with something ``changed`` after it was signed."""
    path = f"/receipts/{account.public_id}{query}"
    signed = signature(TOKEN, settings.CHASKI_PUBLIC_URL + path, list(FORM.items())).decode()
    headers: Mapping[str, str] = {
        "X-Twilio-Signature": signed,
        "Content-Type": "application/x-www-form-urlencoded",
        **changed.pop("headers", {}),
    }
    return server.request("POST", path, **{"body": urlencode(FORM), **changed}, headers=headers)


def stored() -> list[tuple[str, str]]:
    return list(Receipt.objects.values_list("provider_message_id", "kind"))


@pytest.mark.parametrize("query", ["", "?message=0190a0e0-0000-7000-8000-000000000000", "?a=%C3%A9&b=x+y&empty="])
def test_a_plain_receipt_is_stored_without_django(server: Server, twilio: Account, query: str) -> None:
    for _ in range(2):
        answer = post(server, twilio, query, headers={"X-Request-Id": "vendor-7"})
        assert (answer.status, answer.data) == (200, b"")
        assert answer.headers["X-Request-Id"] == "vendor-7"
        assert BY_DJANGO not in answer.headers
    assert stored() == [(FORM["MessageSid"], "delivered")]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"body": urlencode({**FORM, "MessageStatus": "read"})}, 401),
        ({"headers": {"Host": "elsewhere.example"}}, 400),
        ({"headers": {"X-Twilio-Signature": ""}}, 401),
        ({"body": "x" * (256 * 1024 + 1)}, 413),
    ],
    ids=["forged", "strange host", "unsigned", "too large"],
)
def test_whatever_is_wrong_is_answered_by_the_long_way(
    server: Server, twilio: Account, changed: dict[str, Any], status: int
) -> None:
    answer = post(server, twilio, **changed)
    assert (answer.status, BY_DJANGO in answer.headers) == (status, True)
    assert stored() == []


def test_an_account_that_is_none_is_answered_by_the_long_way(server: Server, twilio: Account) -> None:
    twilio.public_id = uuid4()
    answer = post(server, twilio)
    assert (answer.status, BY_DJANGO in answer.headers) == (401, True)


def test_what_is_signed_well_and_not_plain_is_stored_all_the_same(server: Server, twilio: Account) -> None:
    in_chunks = post(server, twilio, body=iter([urlencode(FORM).encode()]))
    assert (in_chunks.status, BY_DJANGO in in_chunks.headers) == (200, True)
    assert stored() == [(FORM["MessageSid"], "delivered")]
