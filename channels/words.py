"""What people write to be left alone, and to be written to again: the whole of a message, in English and Spanish.

Asked when replies are applied (``deliveries.replies``). Vendors of SMS heed some of these by themselves, and then refuse what
follows: https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out. Chat vendors heed none.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum


class Wish(StrEnum):
    """What a person asked for by one word."""

    STOP = "stop"
    START = "start"


_STOP = frozenset(
    {"stop", "stopall", "stop all", "unsubscribe", "optout", "opt out", "baja", "darse de baja", "alto", "no molestar"}
)
#: Words that an SMS to a number means as the law has them (47 CFR 64.1200(a)(10)), and that mean something else in a chat:
#: "cancel" my order, the "end" of it.
_STOP_BY_SMS = frozenset({"cancel", "end", "quit", "revoke", "cancelar", "fin", "parar"})
_START = frozenset({"start", "unstop", "subscribe", "alta", "darse de alta"})
_NOT_LETTERS = re.compile(r"[^a-z]+")
#: No wish is longer; a long text is not looked at.
_LIMIT = 40


def wish(text: str, channel: str) -> Wish | None:
    """What ``text``, as it came over ``channel``, asks for as a whole; None for all that people write otherwise."""
    if len(text) > _LIMIT:
        return None
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    said = _NOT_LETTERS.sub(" ", plain).strip()
    if said in _STOP or (channel == "sms" and said in _STOP_BY_SMS):
        return Wish.STOP
    return Wish.START if said in _START else None
