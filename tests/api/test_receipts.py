"""/receipts/{account}: stored once and answered at once where the provider signed it, refused without a word where not."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client

from channels.twilio import Twilio, signature
from deliveries.models import Account, Receipt
from tests.api.calls import nothing_stored, problem
from tests.factories import make_account

TOKEN = "the-auth-token"
FORM = {"MessageSid": "SM" + "0" * 32, "MessageStatus": "delivered"}


@pytest.fixture
def twilio(db: None) -> Account:
    return make_account(
        "sms",
        "twilio",
        options={"account_sid": "AC" + "0" * 32, "from_number": "+15550100"},
        secrets={"auth_token": TOKEN},
    )


def post(account: Account, form: dict[str, str], *, token: str = TOKEN, query: str = "", **headers: str) -> Any:
    path = f"/receipts/{account.public_id}{query}"
    signed = signature(token, settings.CHASKI_PUBLIC_URL + path, list(form.items())).decode()
    return Client(raise_request_exception=False).post(
        path,
        urlencode(form),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": signed, **headers},
    )


def test_a_signed_receipt_is_stored_once_however_often_it_comes(twilio: Account) -> None:
    for _ in range(3):
        answer = post(twilio, FORM)
        assert (answer.status_code, answer.content) == (200, b"")
    kept = Receipt.objects.get()
    assert (kept.kind, kept.provider_message_id, kept.applied_at) == ("delivered", FORM["MessageSid"], None)
    assert kept.account_id == twilio.pk


def test_a_forged_receipt_and_an_account_that_is_none_look_the_same(twilio: Account) -> None:
    with nothing_stored():
        nobody = Account(public_id=uuid4())
        unsigned = Client().get(f"/receipts/{twilio.public_id}")
        answers = [post(twilio, FORM, token="other"), post(nobody, FORM), unsigned]
    seen = [problem(answer, 401, "forged") for answer in answers]
    for answer in seen:
        answer.pop("request_id")
    assert seen[0] == seen[1] == seen[2]
    assert "WWW-Authenticate" not in answers[0]


def test_a_receipt_signed_for_another_account_is_forged(twilio: Account) -> None:
    other = make_account(
        "sms",
        "twilio",
        "second",
        options={"account_sid": "AC1", "from_number": "+15550100"},
        secrets={"auth_token": "y"},
    )
    with nothing_stored():
        problem(post(other, FORM), 401, "forged")


def test_an_account_whose_secrets_cannot_be_read_verifies_nothing(twilio: Account) -> None:
    Account.objects.update(secrets=b"rubbish")
    with nothing_stored():
        problem(post(twilio, FORM), 401, "forged")


def test_an_account_whose_provider_cannot_be_made_verifies_nothing(
    twilio: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError(TOKEN)

    monkeypatch.setattr(Twilio, "__init__", broken)
    with nothing_stored():
        problem(post(twilio, FORM), 401, "forged")


def test_a_large_receipt_is_refused(twilio: Account) -> None:
    with nothing_stored():
        problem(post(twilio, {**FORM, "x": "y" * 256 * 1024}), 413, "too_large")


def test_a_signed_receipt_that_says_nothing_is_not_asked_for_again(twilio: Account) -> None:
    with nothing_stored():
        assert post(twilio, {"x": "y"}).status_code == 200


def test_what_a_receipt_garbles_is_left_out_and_the_rest_is_kept(twilio: Account) -> None:
    garbled = {**FORM, "ChannelStatusMessage": "a\0b"}
    assert post(twilio, garbled, query="?message=not-an-id").status_code == 200
    kept = Receipt.objects.get()
    assert (kept.detail, kept.message_id, kept.provider_message_id) == ("ab", None, FORM["MessageSid"])


def test_it_answers_quickly(twilio: Account) -> None:
    post(twilio, FORM)
    begun = monotonic()
    post(twilio, {**FORM, "MessageStatus": "sent"})
    assert timedelta(seconds=monotonic() - begun) < timedelta(milliseconds=250)


@pytest.mark.parametrize(("word", "status"), [("the-word", 200), ("another", 401), ("", 401)])
def test_a_vendor_that_asks_whether_the_address_is_ours_hears_its_challenge(db: None, word: str, status: int) -> None:
    account = make_account(
        "whatsapp",
        "whatsapp_cloud",
        options={"phone_number_id": "106540352242922"},
        secrets={"token": "t", "app_secret": "s", "verify_token": "the-word"},
    )
    query = {"hub.mode": "subscribe", "hub.verify_token": word, "hub.challenge": "1158201444"}
    with nothing_stored():
        answer = Client().get(f"/receipts/{account.public_id}", query)
    assert answer.status_code == status
    if status == 200:
        assert (answer.content, answer["Content-Type"]) == (b"1158201444", "text/plain")
    else:
        problem(answer, 401, "forged")
