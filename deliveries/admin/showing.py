"""How values are written for people: text that cannot trick the reader, times, statuses and errors in plain words.

Used by every page of the admin. Templates escape what comes from here like anything else.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta

from chaski.vocabulary import ErrorClass, Status

#: Joiners make emoji and some scripts readable; everything else that is invisible is shown by its code.
_HARMLESS = frozenset("\n\t\u200c\u200d")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cn", "Zl", "Zp"})

TONES = {
    Status.QUEUED: "info",
    Status.SENDING: "info",
    Status.SENT: "primary",
    Status.DELIVERED: "success",
    Status.READ: "success",
    Status.UNDELIVERED: "danger",
    Status.FAILED: "danger",
    Status.EXPIRED: "danger",
    Status.CANCELED: "default",
    Status.SUPPRESSED: "warning",
    Status.IN_DOUBT: "warning",
}

ERRORS = {
    ErrorClass.NOT_SENT: "the request never left us",
    ErrorClass.THROTTLED: "the provider refused it for the moment",
    ErrorClass.TRANSIENT: "the provider failed after reading it",
    ErrorClass.NOT_ALLOWED_NOW: "the provider's rules do not allow it now",
    ErrorClass.RECIPIENT_REFUSED: "the provider refused the recipient",
    ErrorClass.CONTENT_REFUSED: "the provider refused the content",
    ErrorClass.MISCONFIGURED: "the account is not set up right",
    ErrorClass.IN_DOUBT: "the provider's answer never came",
    ErrorClass.EXPIRED: "its time ran out",
    ErrorClass.POISON: "it made its worker process crash again and again",
}


def plain(text: object, limit: int = 0) -> str:
    """``text`` with invisible characters shown as ``[U+202E]``, cut after ``limit`` characters unless that is 0.

    A right-to-left override in a name would make the rest of the line read backwards.
    """
    given = str(text)
    cut = given[:limit] + "\u2026" if limit and len(given) > limit else given
    return "".join(
        f"[U+{ord(c):04X}]" if c not in _HARMLESS and unicodedata.category(c) in _INVISIBLE else c for c in cut
    )


def moment(at: datetime | None) -> str:
    """A time as all pages write it, in UTC; empty for none."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def lasting(length: timedelta) -> str:
    """A length of time in the one or two units that say enough: ``80 ms``, ``4 s``, ``3 min``, ``2 h 5 min``, ``3 d``."""
    seconds = max(length.total_seconds(), 0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def status(value: Status) -> str:
    """A status as people read it."""
    return str(value).replace("_", " ")


def error(error_class: str) -> str:
    """An error class in plain words; a class that we do not know as it is."""
    return ERRORS[ErrorClass(error_class)] if error_class in set(map(str, ErrorClass)) else plain(error_class)
