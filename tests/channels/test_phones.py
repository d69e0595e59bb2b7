"""Phone numbers: whatever is given becomes what the library makes of it, whether it was asked or not."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import phones
from channels.base import InvalidRecipient

CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def by_the_library(to: str) -> str | None:
    try:
        number = phonenumbers.parse(to)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def by_us(to: str) -> str | None:
    try:
        return phones.e164(to)
    except InvalidRecipient:
        return None


@given(st.sampled_from(CODES), st.text("0123456789", min_size=1, max_size=15))
@settings(max_examples=2_000, deadline=None)
def test_a_number_becomes_what_the_library_makes_of_it(code: int, national: str) -> None:
    assert by_us(f"+{code}{national}") == by_the_library(f"+{code}{national}")


@pytest.mark.parametrize("code", CODES)
def test_numbers_of_every_country_begin_as_they_may(code: int) -> None:
    """With each pair of digits, in each length: national prefixes above all."""
    for start in range(100):
        for length in range(4, 16):
            to = f"+{code}{start:02}{'5' * (length - 2)}"
            assert by_us(to) == by_the_library(to)


@pytest.mark.parametrize("to", ["+56912345678", "+14155552671", "+4915112345678", "+391234567890"])
def test_the_library_is_not_asked_for_what_is_plain(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phonenumbers, "parse", None)
    assert phones.e164(to) == to


@pytest.mark.parametrize("to", ["+٥٦٩١٢٣٤٥٦٧٨", "+56 9 1234 5678x9", "56912345678", "+", "", "+5691234567890123"])
def test_what_is_no_number_is_refused(to: str) -> None:
    with pytest.raises(InvalidRecipient, match=r"write it as \+56912345678"):
        phones.e164(to)
