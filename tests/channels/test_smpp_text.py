"""Texts as SMS: what fits the GSM alphabet, how many SMS a text takes, and that its parts say what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.smpp_text import GSM, LATIN_1, UCS2, count, cut, decode, without_header

EXTENSION = "^{}\\[~]|€\f"


def joined(text: str) -> str:
    """What a phone makes of the parts of ``text``."""
    made = cut(text, 7)
    bodies = made.parts if len(made.parts) == 1 else [without_header(part) for part in made.parts]
    return "".join(decode(made.data_coding, body) for body in bodies)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("@", b"\x00"),
        ("Año 2026: 5 €", b"A\x7do 2026: 5 \x1b\x65"),
        ("¿Qué? {x}", b"\x60Qu\x05? \x1b\x28x\x1b\x29"),
        ("Δ_Ω$¤§", b"\x10\x11\x15\x02\x24\x5f"),
    ],
)
def test_what_gsm_has_goes_in_its_own_codes(text: str, octets: bytes) -> None:
    assert cut(text, 0).data_coding == GSM
    assert cut(text, 0).parts == (octets,)


@pytest.mark.parametrize("text", ["ваш заказ", "👋", "`", "tab\t", "Á"])
def test_what_gsm_has_not_goes_as_ucs_2(text: str) -> None:
    made = cut(text, 0)
    assert (made.data_coding, made.parts) == (UCS2, (text.encode("utf-16-be"),))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("ж" * 134, 2),
        ("ж" * 135, 3),
        ("👋" * 35, 1),
        ("👋" * 36, 2),
        # An escaped character, or a pair, that would straddle two parts goes into the second as a whole.
        ("a" * 152 + "€" + "b" * 152, 3),
        ("ж" * 66 + "👋" + "ж" * 66, 3),
    ],
)
def test_a_text_takes_as_many_sms_as_the_standard_says(text: str, parts: int) -> None:
    assert len(cut(text, 0).parts) == count(text) == parts


def test_the_parts_of_a_long_text_say_which_they_are() -> None:
    made = cut("a" * 307, 0x2A)
    assert [part[:6].hex() for part in made.parts] == ["0500032a0301", "0500032a0302", "0500032a0303"]
    assert [len(part) for part in made.parts] == [159, 159, 7]


@given(st.text(st.sampled_from("aÑ\n 1" + EXTENSION), max_size=700))
def test_a_text_in_gsm_comes_out_as_it_went_in(text: str) -> None:
    made = cut(text, 255)
    assert made.data_coding == GSM
    assert all(len(part) <= 160 for part in made.parts)
    assert joined(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_any_text_comes_out_as_it_went_in(text: str) -> None:
    assert joined(text) == text
    assert all(len(part) <= 140 for part in cut(text, 0).parts) or cut(text, 0).data_coding == GSM


@given(st.integers(0, 255), st.binary(max_size=160))
def test_whatever_octets_come_they_are_read_as_text(data_coding: int, octets: bytes) -> None:
    assert isinstance(decode(data_coding, octets), str)
    assert isinstance(without_header(octets), bytes)


def test_octets_are_read_by_their_coding() -> None:
    assert decode(LATIN_1, "Año".encode("latin-1")) == "Año"
    assert decode(1, b"STOP") == "STOP"
    assert decode(GSM, b"\x1b\x65\x1b\x7a \x1b") == "€z  "
    assert decode(UCS2, b"\xd8") == "�"
