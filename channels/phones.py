"""Phone numbers in E.164, as `phonenumbers` makes them of what people write. Called by ``channels.media``.

Most numbers come in E.164 already. What the library finds in one of those follows from its country's code, its length and whether
it begins like a national prefix, so it is not asked: that takes it longer than everything else that a message is checked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import phonenumbers
from phonenumbers import PhoneMetadata

from channels.base import InvalidRecipient

_PHONE = re.compile(r"\+[0-9 ().\-/\u00a0\u2010-\u2015]+\Z")
_PLAIN = re.compile(r"\+[1-9][0-9]{6,14}\Z", re.ASCII)
_LONGEST_CODE = 3


def e164(to: str) -> str:
    """``to`` in E.164. It must carry its country code: ``+56912345678``, ``+56 9 1234 5678``. Raises ``InvalidRecipient``."""
    if _PLAIN.match(to) and _is_its_own(to):
        return to
    if not _PHONE.match(to.strip()):  # the library would read letters as digits and drop an extension
        raise InvalidRecipient(
            "is not an international phone number; write it as +56912345678, with + and country code"
        )
    return _by_the_library(to)


def _by_the_library(to: str) -> str:
    try:
        number = phonenumbers.parse(to)
    except phonenumbers.NumberParseException as error:
        raise InvalidRecipient("is not a phone number; write it as +56912345678, with + and country code") from error
    if not phonenumbers.is_possible_number(number):
        raise InvalidRecipient("has too few or too many digits for its country; write it as +56912345678")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A country's numbers. ``prefix`` is what the library takes away where a number begins with it."""

    lengths: frozenset[int]
    prefix: re.Pattern[str] | None


def _is_its_own(to: str) -> bool:
    """Would the library give exactly this back? False where it has to say."""
    for digits in range(1, _LONGEST_CODE + 1):
        if plan := _plan(to[1 : 1 + digits]):
            start = 1 + digits
            return len(to) - start in plan.lengths and not (plan.prefix and plan.prefix.match(to, start))
    return False


@cache
def _plan(code: str) -> _Plan | None:
    """That of the country ``code``, the main one where several share it; None where there is no such country."""
    if int(code) not in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        return None
    region = phonenumbers.region_code_for_country_code(int(code))
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
    if metadata is None:
        return None
    prefix = metadata.national_prefix_for_parsing
    general = metadata.general_desc
    lengths = set(general.possible_length) - set(general.possible_length_local_only) if general else set()
    return _Plan(frozenset(lengths), re.compile(prefix) if prefix else None)
