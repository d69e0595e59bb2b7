"""Texts as an SMS carries them: the GSM alphabet where it has every character, else UCS-2, and the parts of a long one.

Used by the SMPP provider, for what goes out and for what people write. The alphabet and its extension are those of 3GPP TS 23.038
(GSM 03.38), the header of a part is that of 3GPP TS 23.040, 9.2.3.24.1. Over SMPP each septet takes an octet of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GSM, ASCII, LATIN_1, UCS2 = 0, 1, 3, 8  # data_coding: SMPP 3.4, 5.2.19
PARTS_LIMIT = 10
_ESCAPE = 0x1B
_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}
_SEPTETS = {character: bytes([code]) for code, character in enumerate(_BASIC) if code != _ESCAPE}
_SEPTETS |= {character: bytes([_ESCAPE, code]) for character, code in _EXTENSION.items()}
_EXTENDED = {code: character for character, code in _EXTENSION.items()}
_PYTHON_NAMES = {ASCII: "ascii", LATIN_1: "latin-1", UCS2: "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Room:
    """How many octets of text fit: into a message that is alone, and into each part of a longer one, behind its header."""

    alone: int
    part: int


_ROOM = {GSM: Room(160, 153), UCS2: Room(140, 134)}


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as ``short_message`` octets of one or more SMS; with more than one, each begins with its header."""

    data_coding: int
    parts: tuple[bytes, ...]


def cut(text: str, reference: int) -> Cut:
    """``text`` in as few SMS as it takes. ``reference``, 0 to 255, is what a phone knows the parts of one text by.

    No character is cut in two, neither an escaped one of the extension nor one that UCS-2 writes as a pair. Raises
    ``UnicodeEncodeError`` for half a character, ``ValueError`` for more than 255 parts.
    """
    data_coding, characters = _encoded(text)
    room = _ROOM[data_coding]
    whole = b"".join(characters)
    if len(whole) <= room.alone:
        return Cut(data_coding, (whole,))
    pieces = list(_filled(characters, room.part))
    return Cut(data_coding, tuple(_header(reference, len(pieces), n) + piece for n, piece in enumerate(pieces, 1)))


def count(text: str) -> int:
    """How many SMS ``text`` takes. Raises ``UnicodeEncodeError`` for half a character."""
    data_coding, characters = _encoded(text)
    room = _ROOM[data_coding]
    if sum(map(len, characters)) <= room.alone:
        return 1
    return sum(1 for _ in _filled(characters, room.part))


def fits_gsm(text: str) -> bool:
    """Has the GSM alphabet, with its extension, every character?"""
    return all(character in _SEPTETS for character in text)


def decode(data_coding: int, octets: bytes) -> str:
    """What ``octets`` say, with replacement characters where they say nothing. An unknown ``data_coding`` is read as Latin-1."""
    if data_coding == GSM:
        return _from_gsm(octets)
    return octets.decode(_PYTHON_NAMES.get(data_coding, "latin-1"), errors="replace")


def without_header(octets: bytes) -> bytes:
    """The text of a message whose ``esm_class`` announces a user data header."""
    return octets[octets[0] + 1 :] if octets else b""


def _encoded(text: str) -> tuple[int, list[bytes]]:
    """The coding, and the octets of each character."""
    if fits_gsm(text):
        return GSM, [_SEPTETS[character] for character in text]
    return UCS2, [character.encode("utf-16-be") for character in text]


def _filled(characters: Iterable[bytes], room: int) -> Iterable[bytes]:
    piece = bytearray()
    for character in characters:
        if len(piece) + len(character) > room:
            yield bytes(piece)
            piece.clear()
        piece += character
    yield bytes(piece)


def _header(reference: int, total: int, number: int) -> bytes:
    """Five octets follow: concatenation with a reference of 8 bits, which every phone knows, of length three."""
    return bytes((5, 0, 3, reference, total, number))


def _from_gsm(octets: bytes) -> str:
    found = list[str]()
    septets = iter(octets)
    for septet in septets:
        if septet == _ESCAPE:
            following = next(septets, None)
            found.append(" " if following is None else _EXTENDED.get(following, _basic(following)))
        else:
            found.append(_basic(septet))
    return "".join(found)


def _basic(septet: int) -> str:
    return _BASIC[septet] if septet < len(_BASIC) else "\N{REPLACEMENT CHARACTER}"
