"""Files of a message: their kinds, and what a provider says about those it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channels.attachments import Attachment, Carriage, Kind, Takes
from tests.channels.contract import attachment

MAIL = Takes(Carriage.ENCLOSED, 3, dict.fromkeys(Kind, 1_000), 2_000)
CHAT = Takes(Carriage.FETCHED, 1, {Kind.IMAGE: 1_000})


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("image/jpeg", Kind.IMAGE),
        ("image/svg+xml", Kind.DOCUMENT),
        ("image/heic", Kind.DOCUMENT),
        ("video/mp4", Kind.VIDEO),
        ("audio/ogg", Kind.AUDIO),
        ("text/csv", Kind.DOCUMENT),
        ("document/x", Kind.DOCUMENT),
    ],
)
def test_the_kind_is_what_phones_show_it_as(content_type: str, kind: Kind) -> None:
    assert attachment(content_type).kind is kind


@pytest.mark.parametrize(
    ("takes", "files", "words"),
    [
        (MAIL, [attachment("image/png")] * 4, "at most 3 files"),
        (CHAT, [attachment("image/png")] * 2, "at most 1 file"),
        (CHAT, [attachment("application/pdf")], "no image"),
        (CHAT, [attachment("image/png", size=1_001)], "at most 1,000"),
        (MAIL, [attachment("image/png", size=900)] * 3, "2,700 bytes in all"),
        (MAIL, [Attachment("a.png", "image/png", "https://shop.example/a.png")], "/api/v1/files"),
        (CHAT, [replace(attachment("image/png"), content_id="logo")], "content_id"),
    ],
)
def test_what_it_does_not_take_is_told_with_what_to_do(takes: Takes, files: list[Attachment], words: str) -> None:
    assert words in takes.fault(files)


def test_what_it_takes_passes() -> None:
    assert MAIL.fault([replace(attachment("image/png"), content_id="logo"), attachment("text/csv", size=1_000)]) == ""
    assert CHAT.fault([Attachment("a.png", "image/png", "https://shop.example/a.png")]) == ""
