"""Codes that no table knows: noticed where they are classed, counted, and shown."""

from __future__ import annotations

import pytest

from channels.answers import by_status
from channels.http import HttpResponse
from channels.telegram import Telegram
from channels.twilio import Twilio
from deliveries import findings
from deliveries.delivery import unmapped
from deliveries.delivery.unmapped import Unmapped
from deliveries.models import UnmappedCode
from deliveries.retry import Outcome
from tests.channels.contract import Unused
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
STRANGE = Outcome("content_refused", "99999", "something new", unmapped=True)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.delivery.settle.unmapped", Unmapped())
    make_account("sms")


def answer(status: int, body: bytes) -> HttpResponse:
    return HttpResponse(status, {}, body)


def test_a_code_that_only_the_status_classed_is_marked() -> None:
    assert by_status(answer(400, b""), "x", "99999").unmapped
    assert not by_status(answer(400, b""), "x").unmapped
    assert not by_status(answer(502, b""), "x", "http_502").unmapped
    account = {"account_sid": "AC1", "auth_token": "t", "from_number": "+15550100"}
    twilio = Twilio(Twilio.check(account), Unused())
    assert twilio._error(answer(400, b'{"code": 99999, "message": "x"}')).unmapped
    assert not twilio._error(answer(400, b'{"code": 21211, "message": "x"}')).unmapped
    telegram = Telegram(Telegram.check({"token": "1:abcdef"}), Unused())
    assert not telegram._error(answer(403, b'{"ok":false,"error_code":403,"description":"x"}'), "1").unmapped


def test_it_is_counted_with_the_vendors_words(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, STRANGE)
    found = UnmappedCode.objects.get()
    assert (found.provider, found.code, found.error_class) == ("sandbox", "99999", "content_refused")
    assert (found.detail, found.message_id, found.times) == ("something new", message_id, 1)
    steps.send(steps.accept(shop.service)[0], steps.REFUSALS["content_refused"])
    assert UnmappedCode.objects.count() == 1


def test_one_that_comes_often_is_written_now_and_then_with_its_count(
    shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for message_id in steps.accept(shop.service, 4):
        steps.send(message_id, STRANGE)
    assert UnmappedCode.objects.get().times == 1
    monkeypatch.setattr(unmapped, "EVERY_SECONDS", 0.0)
    steps.send(steps.accept(shop.service)[0], STRANGE)
    assert UnmappedCode.objects.get().times == 5


def test_doctor_names_it(shop: Caller) -> None:
    assert "every code" in said()
    steps.send(steps.accept(shop.service)[0], STRANGE)
    assert "sandbox 99999 (1 times)" in said()


def said() -> str:
    [finding] = findings.codes()
    return finding.found
