"""Mails with files, as the standard library reads them: what arrives is what was attached, whatever its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import Accepted, ContentRefused, Outbound
from channels.email_message import Letterhead, compose, mailbox
from channels.email_parts import File
from tests.channels.contract import MESSAGE_ID, attachment
from tests.channels.postbox import Inbox, mail, mailhost, over_tls

HEAD = Letterhead(mailbox("The shop <hello@shop.example>"), "shop.example")
NAME = (
    st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=60)
    .map(str.strip)
    .filter(bool)
)


def composed(files: Sequence[File], **changes: Any) -> bytes:
    fields: dict[str, Any] = {"message_id": MESSAGE_ID, "channel": "email", "to": "a@b.example", "text": "Hello"}
    asked = Outbound(**{**fields, **changes})
    return compose(asked, mailbox(asked.to), HEAD, files)


def seen(content: bytes) -> Any:
    return message_from_bytes(content, policy=policy.default)


@given(name=NAME, content=st.binary(max_size=500), text=st.text(st.characters(blacklist_categories=("Cs",))))
@settings(max_examples=200, deadline=None)
def test_any_file_arrives_under_its_name_and_adds_no_header(name: str, content: bytes, text: str) -> None:
    raw = composed([(attachment("application/pdf", name=name), content)], text=text)
    found = seen(raw)
    [part] = found.iter_attachments()
    assert part.get_content() == content
    assert part.get_filename() == name
    assert part.get_content_type() == "application/pdf"
    assert {header.lower() for header in part} == {"content-type", "content-transfer-encoding", "content-disposition"}
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert (
        found.get_body(("plain",)).get_content().splitlines() == re.split(r"\r\n|\r|\n", text.removesuffix("\n"))
        or text
    )


def test_a_picture_goes_beside_the_html_that_shows_it_and_a_guide_behind_everything() -> None:
    logo = replace(attachment("image/png", name="logo.png"), content_id="logo@shop")
    guide = attachment("application/pdf", name="guía.pdf")
    found = seen(composed([(logo, b"png"), (guide, b"pdf")], html='<img src="cid:logo@shop">'))
    assert found.get_content_type() == "multipart/mixed"
    said, attached = found.iter_parts()
    assert said.get_content_type() == "multipart/alternative"
    plain, related = said.iter_parts()
    assert plain.get_content().strip() == "Hello"
    assert related.get_content_type() == "multipart/related"
    shown, picture = related.iter_parts()
    assert "cid:logo@shop" in shown.get_content()
    assert (picture["Content-ID"], picture.get_content_disposition()) == ("<logo@shop>", "inline")
    assert picture.get_content() == b"png"
    assert (attached.get_filename(), attached.get_content()) == ("guía.pdf", b"pdf")
    assert not found.defects


def test_a_file_needs_no_text() -> None:
    [part] = seen(composed([(attachment("text/csv", name="a.csv"), b"a;b")], text="")).iter_attachments()
    assert part.get_filename() == "a.csv"


def test_a_row_with_a_type_or_content_id_that_would_be_a_header_is_harmless() -> None:
    odd = replace(attachment("text/html\r\nBcc: x@y.example", name="a"), content_id="x>\r\nBcc: x@y.example")
    found = seen(composed([(odd, b"x")]))
    assert not [part for part in found.walk() if part["Bcc"]]


class TestOnTheWire:
    async def test_a_mail_with_a_file_arrives_whole(self) -> None:
        content = bytes(range(256)) * 4_000

        async def read() -> bytes:
            return content

        inbox = Inbox()
        async with mailhost(inbox) as port:
            provider = over_tls(port, "none")
            guide = replace(attachment("application/pdf", size=len(content), name="guía.pdf"), read=read)
            assert isinstance(await provider.send(mail(attachments=(guide,))), Accepted)
            await provider.close()
        [part] = seen(inbox.envelopes[0].original_content or b"").iter_attachments()
        assert part.get_content() == content

    async def test_a_file_that_is_known_by_its_url_alone_is_no_doubt(self) -> None:
        provider = over_tls(9, "none")
        with pytest.raises(ContentRefused, match="file_by_url"):
            await provider.send(mail(attachments=(replace(attachment("image/png"), read=None),)))
