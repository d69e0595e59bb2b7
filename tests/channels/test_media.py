"""What a recipient looks like on each channel."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import InvalidRecipient
from channels.media import MEDIA


@pytest.mark.parametrize(
    ("channel", "to", "becomes"),
    [
        ("sms", "+56912345678", "+56912345678"),
        ("sms", " +56 9 1234 5678 ", "+56912345678"),
        ("whatsapp", "+1 (415) 555-2671", "+14155552671"),
        ("email", "Ana.Ruiz+tag@Shop.EXAMPLE", "Ana.Ruiz+tag@shop.example"),
        ("email", "info@bücher.example", "info@bücher.example"),
        ("telegram", "-1001234567890", "-1001234567890"),
        ("telegram", "@shop_news", "@shop_news"),
        ("slack", " C024BE91L ", "C024BE91L"),
        ("webhook", "https://Shop.example:443/hook", "https://shop.example/hook"),
    ],
)
def test_a_recipient_is_written_one_way(channel: str, to: str, becomes: str) -> None:
    assert MEDIA[channel].normalise(to) == becomes
    assert MEDIA[channel].normalise(becomes) == becomes


@pytest.mark.parametrize(
    ("channel", "to"),
    [
        ("sms", "912345678"),
        ("sms", "0056912345678"),
        ("sms", "+5691"),
        ("sms", "+999123456789"),
        ("sms", "+56912345678x"),
        ("sms", ""),
        ("email", "ana"),
        ("email", "ana@"),
        ("email", "ana@shop.example, bob@shop.example"),
        ("email", "Ana <ana@shop.example>"),
        ("email", "ana@shop.example\r\nBcc: bob@shop.example"),
        ("email", "ana@[127.0.0.1]"),
        ("telegram", "shop"),
        ("telegram", "@ab"),
        ("telegram", "1.5"),
        ("telegram", "--1"),
        ("telegram", "1\n2"),
        ("push", ""),
        ("push", "x" * 2049),
        ("webhook", "http://shop.example/"),
    ],
)
def test_what_no_vendor_could_reach_is_refused_in_words(channel: str, to: str) -> None:
    with pytest.raises(InvalidRecipient) as caught:
        MEDIA[channel].normalise(to)
    assert str(caught.value).startswith(("is ", "has ", "must "))


@given(channel=st.sampled_from(sorted(MEDIA)), to=st.text(max_size=60))
@settings(max_examples=600, deadline=None)
def test_whatever_is_given_is_refused_or_stays_what_it_has_become(channel: str, to: str) -> None:
    normalise = MEDIA[channel].normalise
    try:
        found = normalise(to)
    except InvalidRecipient:
        return
    assert normalise(found) == found


def test_every_message_has_an_end() -> None:
    assert all(timedelta(minutes=10) <= medium.expires_after <= timedelta(days=4) for medium in MEDIA.values())
