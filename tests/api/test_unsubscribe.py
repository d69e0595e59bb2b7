"""Unsubscribing by one click: who clicks is suppressed, who only looks is not."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core import signing

from deliveries.models import Audit, Message, Suppression
from deliveries.unsubscribing import url_of
from tests.api.calls import Api, nothing_stored

MAIL = {"channel": "email", "to": "ana@example.com", "subject": "News", "text": "x"}


def path(api: Api) -> str:
    message = api.send(**MAIL)
    return url_of(UUID(message["id"])).removeprefix(settings.CHASKI_PUBLIC_URL)


def test_one_click_suppresses_once_and_says_so_in_the_audit(api: Api) -> None:
    url = path(api)
    for _ in range(2):
        answer = api.client.post(url, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded")
        assert answer.status_code == 200
        assert b"no more of these mails" in answer.content
    kept = Suppression.objects.get()
    assert (kept.channel, kept.recipient, kept.service) == ("email", "ana@example.com", api.caller.service)
    assert str(Message.objects.get().pk) in kept.reason
    assert Audit.objects.filter(actor="recipient", action="suppress").exists()


def test_a_scanner_that_follows_the_link_changes_nothing(api: Api) -> None:
    url = path(api)
    with nothing_stored():
        answer = api.client.get(url)
    assert answer.status_code == 200
    assert b"<form method=" in answer.content
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert "ana@example.com" not in answer.content.decode()


def test_a_link_that_is_not_ours_says_so(api: Api) -> None:
    path(api)
    for token in ("x", signing.Signer(salt="other").sign_object(["0" * 32]), *odd()):
        for method in (api.client.get, api.client.post):
            with nothing_stored():
                assert method(f"/unsubscribe/{token}").status_code == 404


def odd() -> list[str]:
    """Signed here, and no message: one that is gone, and what only a mistake would sign."""
    return [signing.Signer(salt="chaski.unsubscribe").sign_object(each) for each in (["0" * 32], [7], "x", [])]
