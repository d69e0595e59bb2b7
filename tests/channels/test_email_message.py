"""What a mail looks like, and what is kept out of it: header injection by every door."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import email_message
from channels.base import Outbound
from channels.email_message import Letterhead, Mailbox, compose, faults, mailbox

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"
HEAD = Letterhead(mailbox("The shop <hello@shop.example>"), "shop.example")
OURS = {"from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding"}

#: What a service may put into a text: everything but controls and half characters, and no encoded words.
LINE = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=200).filter(
    lambda s: "=?" not in s
)
BODY = st.text(st.characters(blacklist_categories=("Cs",)), max_size=400)


def outbound(**changes: Any) -> Outbound:
    """An ordinary mail."""
    fields = {"message_id": MESSAGE_ID, "channel": "email", "to": "a@b.example", "text": "Hello", "subject": "Order 7"}
    return Outbound(**{**fields, **changes})


def composed(**changes: Any) -> bytes:
    """The bytes of a mail."""
    asked = outbound(**changes)
    assert faults(asked) == {}
    return compose(asked, mailbox(asked.to), HEAD)


def seen(content: bytes) -> Any:
    """What the standard library reads."""
    return message_from_bytes(content, policy=policy.default)


def squeezed(text: str) -> str:
    """Without the white space that folding may change."""
    return "".join(text.split())


@given(subject=LINE, text=BODY, html=BODY)
@settings(max_examples=300, deadline=None)
def test_any_text_arrives_and_adds_no_header(subject: str, text: str, html: str) -> None:
    content = composed(subject=subject, text=text, html=html)
    found = seen(content)
    assert {name.lower() for name in found} <= OURS
    assert squeezed(str(found["Subject"] or "")) == squeezed(subject)
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content)
    assert content.endswith(b"\r\n")
    assert content.isascii()
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    if text or not html:
        assert lines(found.get_body(("plain",)).get_content()) == lines(text)
    if html:
        assert lines(found.get_body(("html",)).get_content()) == lines(html)


def by_the_standard_library(asked: Outbound, to: Mailbox) -> bytes:
    """The same mail, put together by ``EmailMessage``."""
    rules = email_message._POLICY if to.ascii else email_message._UTF8_POLICY
    message = EmailMessage(policy=rules)
    for name, value in email_message._headers(asked, to, HEAD):
        message[name] = value
    first, *more = [(part, text) for part, text in (("plain", asked.text), ("html", asked.html)) if text] or [
        ("plain", "")
    ]
    for add, (subtype, text) in ((message.set_content, first), *((message.add_alternative, each) for each in more)):
        encoding = email_message._encoding(text)
        add(email_message._lines(text), subtype=subtype, cte=encoding)  # type: ignore[operator]
    return message.as_bytes()


def comparable(content: bytes) -> bytes:
    """Without what differs each time."""
    content = re.sub(rb"Date: [^\r]*", b"Date:", content)
    found = re.search(rb'boundary="([^"]*)"', content)
    return content.replace(found[1], b"boundary") if found else content


@given(subject=LINE, text=BODY, html=BODY, to=st.sampled_from(["a@b.example", "Ana <a@b.example>", "ñandú@b.example"]))
@settings(max_examples=300, deadline=None)
def test_it_is_what_the_standard_library_makes_of_it(subject: str, text: str, html: str, to: str) -> None:
    asked = outbound(subject=subject, text=text, html=html, options={"headers": {"X-Shop": subject[:50] or "x"}})
    if faults(asked):
        return
    assert comparable(compose(asked, mailbox(to), HEAD)) == comparable(by_the_standard_library(asked, mailbox(to)))


def lines(text: str) -> list[str]:
    """The lines, without the last line's end."""
    return re.split(r"\r\n|\r|\n", re.sub(r"(\r\n|\r|\n)\Z", "", text))


@given(name=st.text(max_size=60), value=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_header_of_a_service_adds_another(name: str, value: str) -> None:
    asked = outbound(options={"headers": {name: value}})
    if not faults(asked):
        found = seen(compose(asked, mailbox(asked.to), HEAD))
        assert {header.lower() for header in found} <= OURS | {name.lower()}


@pytest.mark.parametrize(
    "name",
    [
        "Bcc",
        "bcc",
        "Cc",
        "To",
        "From",
        "Sender",
        "Reply-To",
        "Subject",
        "Date",
        "Message-ID",
        "Return-Path",
        "Received",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
        "DKIM-Signature",
        "Resent-To",
        "Disposition-Notification-To",
        "X-SMTPAPI",
        "x-mc-BccAddress",
        "X-MSYS-API",
        "X-A\r\nBcc: x@y.example\r\nX-B",
        "X-A\nBcc",
        "X-A\x0bBcc",
        "X-A:",
        "X-A ",
        " X-A",
        "X-",
        "X-Ä",
        "X-\u017ftate",  # the long s, a letter of the alphabet where case is ignored
        "X-" + "a" * 80,
        "",
        "From X",
    ],
)
def test_a_header_name_that_is_not_a_services_to_set_is_refused(name: str) -> None:
    assert "options.headers" in faults(outbound(options={"headers": {name: "x"}}))


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nBcc: x@y.example",
        "a\nb",
        "a\rb",
        "a\x0bb",
        "a\x0cb",
        "a\x00b",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "\ud800",
        "=?utf-8?q?a=0D=0ABcc:_x=40y.example?=",
        "=?UTF-8?B?DQpCY2M6IHhAeS5leGFtcGxl?=",
        "x" * 901,
    ],
)
def test_a_value_that_would_end_its_line_is_refused_in_every_header(value: str) -> None:
    assert "subject" in faults(outbound(subject=value))
    assert "options.headers" in faults(outbound(options={"headers": {"X-A": value}}))
    assert "options.reply_to" in faults(outbound(options={"reply_to": f"{value} <a@b.example>"}))


@pytest.mark.parametrize("headers", [[], "X-A: b", {"X-A": 1}, {"X-A": None}, {"X-A": "1", "x-a": "2"}, {1: "x"}])
def test_headers_of_the_wrong_kind_are_refused(headers: object) -> None:
    assert "options.headers" in faults(outbound(options={"headers": headers}))


def test_more_headers_than_a_mail_needs_are_refused() -> None:
    assert faults(outbound(options={"headers": {f"X-{number}": "1" for number in range(20)}})) == {}
    assert faults(outbound(options={"headers": {f"X-{number}": "1" for number in range(21)}}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("List-Unsubscribe", f"<https://shop.example/{'u' * 300}>, <mailto:off@shop.example>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("References", "<a@b.example> <c@d.example>"),
        ("X-Campaign", "été"),
    ],
)
def test_a_header_that_is_allowed_arrives_whole(name: str, value: str) -> None:
    content = composed(options={"headers": {name: value}})
    assert str(seen(content)[name]) == value
    if value.isascii():
        assert f"\r\n{name}: {value}\r\n".encode() in content  # encoded words would break a URL for many readers


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_character_is_refused(text: str) -> None:
    assert set(faults(outbound(text=text, html=text, subject=text))) == {"text", "html", "subject"}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n" * 10, "7bit"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Señor, su pedido va en camino. " * 10, "quoted-printable"),
        ("ваш заказ в пути " * 10, "base64"),
        ("é" + "x" * 40_000, "base64"),
    ],
)
def test_a_body_is_encoded_only_as_far_as_it_must_be(text: str, encoding: str) -> None:
    assert seen(composed(text=text))["Content-Transfer-Encoding"] == encoding


def test_html_alone_is_no_multipart() -> None:
    found = seen(composed(text="", html="<p>x</p>"))
    assert found.get_content_type() == "text/html"


def test_text_and_html_are_alternatives_the_best_last() -> None:
    found = seen(composed(html="<p>x</p>"))
    assert [part.get_content_type() for part in found.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("a@b.example", "", "a@b.example"),
        ("Ana <a@B.Example>", "Ana", "a@b.example"),
        ('"Ruiz, Ana" <a@b.example>', "Ruiz, Ana", "a@b.example"),
        ("a@bücher.example", "", "a@xn--bcher-kva.example"),
        ("jürgen@b.example", "", "jürgen@b.example"),
    ],
)
def test_an_address_is_read_with_its_name(text: str, name: str, address: str) -> None:
    found = mailbox(text)
    assert (found.name, found.address) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b.example, c@d.example",
        "a@b.example>",
        "Ana",
        "a b@c.example",
        "a@b.example\n",
        "x" * 121 + " <a@b.example>",
    ],
)
def test_what_is_not_one_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        mailbox(text)


def test_every_message_option_is_checked() -> None:
    for name in email_message.MESSAGE_OPTIONS:
        assert f"options.{name}" in faults(outbound(options={name: 5}))


@given(
    st.from_regex(email_message._PLAIN_ADDRESS, fullmatch=True).filter(
        lambda text: len(text) <= email_message._PLAIN_LIMIT
    )
)
@settings(deadline=None)
def test_the_short_way_reads_an_ordinary_address_as_the_long_one_does(text: str) -> None:
    assert mailbox(text) == email_message._read(text)


def test_a_mail_offers_to_unsubscribe_by_one_click() -> None:
    url = "https://chaski.example/unsubscribe/" + "x" * 200
    found = seen(compose(outbound(unsubscribe_url=url), mailbox("a@b.example"), HEAD))
    assert found["List-Unsubscribe"] == f"<{url}>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "options.unsubscribe" in faults(outbound(options={"unsubscribe": "yes"}))
    both = {"unsubscribe": True, "headers": {"List-Unsubscribe": "<https://shop.example>"}}
    assert "options.unsubscribe" in faults(outbound(options=both))
    assert faults(outbound(options={"unsubscribe": True})) == {}
