"""Bodies behind their own permission, and text that somebody made up to harm the reader of any page."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.test import Client

from deliveries import acts, files
from deliveries.models import Account, Audit, Message, Pause, Service
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.admin.frames import Frames
from tests.admin.test_message_page import address, page


def body(client: Client, message: Message, reason: str = "the customer cannot read it") -> str:
    return client.post(address(message, "body"), {"reason": reason}, follow=True).content.decode()


def test_a_body_is_shown_in_a_frame_in_which_nothing_runs_and_the_reading_is_audited(
    enter: Enter, service: Service
) -> None:
    message = rows.accept(
        service,
        channel="email",
        to="ana@example.org",
        subject="Hi <b>",
        text="</pre><script>alert(1)</script>",
        html="<p style='color:red'>Hi</p><script>alert(2)</script>",
        metadata={"note": "<script>alert(3)</script>"},
    )
    html = body(enter("security", name="eva"), message)
    found = Frames(html)
    text, rich = found.frames
    assert text["sandbox"] == rich["sandbox"] == ""
    assert text["srcdoc"] is not None
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text["srcdoc"]
    assert rich["srcdoc"] == "<p style='color:red'>Hi</p><script>alert(2)</script>"
    assert found.runs == []
    assert "Hi &lt;b&gt;" in html
    audit = Audit.objects.get(action="view_body")
    assert (audit.actor, audit.target, audit.reason) == ("admin:eva", str(message.pk), "the customer cannot read it")


def test_a_body_needs_its_own_permission_a_reason_and_a_post(enter: Enter, service: Service) -> None:
    message = rows.accept(service, text="your code is 4711")
    operator, security = enter("operator"), enter("security")
    assert operator.post(address(message, "body"), {"reason": "x"}).status_code == 403
    assert "say why you need to read it" in body(security, message, " ")
    assert security.get(address(message, "body")).status_code == 405
    assert not Audit.objects.exists()
    for client in (operator, security):
        assert "4711" not in page(client, message)


def test_files_are_named_in_the_body_and_their_names_run_nothing(enter: Enter, service: Service) -> None:
    file_id, _ = files.keep(service.pk, b"pdf", "<script>alert(1)<script>.pdf", "application/pdf")
    public = {"url": "https://shop.example/a.png", "content_type": "image/png", "name": "<img src=x onerror=alert(1)>"}
    message = rows.accept(service, attachments=[str(file_id), public])
    security = enter("security")
    html = body(security, message)
    assert Frames(html).runs == []
    assert "&lt;script&gt;alert(1)&lt;script&gt;.pdf" in html
    assert "shop.example" not in html, "nobody here has looked at what is there"
    [link] = re.findall(r'href="(/files/[^"]+)"', html)
    assert security.get(link).content == b"pdf"
    assert "alert(1)" not in page(enter("operator"), message)


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' x-init='alert(1)",
    "{{ 7*7 }}{% debug %}",
    "javascript:alert(1)",
    "invoice\u202egpj.exe",
    "a\u2066b\u200f\ufeffc",
    "Z͑ͫ̓ͪ̂ͫ̽" * 30,
)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_text_in_any_field_runs_nothing_and_breaks_no_page(boss: Client, service: Service, evil: str) -> None:
    message = rows.accept(service, reference=evil, ordering_key=evil, key=evil, tags=[evil[:64]], metadata={evil: evil})
    rows.failed(message, rows.Outcome("content_refused", evil[:64], evil, provider_message_id=evil), task_id=evil)
    Message.objects.filter(pk=message.pk).update(to=evil, recipient=evil, request_id=evil)
    Audit.objects.create(actor=evil[:150], action="cancel", target=str(message.pk), reason=evil)
    acts.suppress("sms", evil, service_id=None, actor=evil[:150], reason=evil)
    Pause.objects.create(scope="channel", value=evil[:64], actor=evil[:150])
    Account.objects.update(stopped_at=datetime.now(UTC), stopped_reason=evil[:600])
    lists = [f"/admin/deliveries/{model}/" for model in ("message", "audit", "suppression", "pause", "account")]
    for path in ("/admin/", address(message), *lists):
        answer = boss.get(path)
        assert answer.status_code == 200, path
        html = answer.content.decode()
        assert Frames(html).runs == [], path
        assert "x-init='alert" not in html
        assert "49{" not in html
        for invisible in "\u202e\u2066\u200f\ufeff":
            assert invisible not in html, path
    found = boss.get("/admin/deliveries/message/", {"q": evil}).content.decode()
    assert Frames(found).runs == []
    assert str(message.pk) in found


def test_a_very_long_word_does_not_widen_the_page(boss: Client, service: Service) -> None:
    message = rows.accept(service, reference="x" * 255)
    assert "x" * 31 not in boss.get("/admin/deliveries/message/").content.decode()
    assert re.search(r"x{255}", page(boss, message))
