"""What an SMSC's ``command_status`` means, as data: SMPP 3.4, 5.1.3, https://smpp.org/SMPP_v3_4_Issue1_2.pdf

Used by the SMPP provider, to class a refusal, and by the gateway, to know when to slow down. From 0x400 on each vendor has
codes of its own, which no table can know.
"""

from __future__ import annotations

from channels.codes import Code, Codes
from channels.errors import (
    ContentRefused,
    Misconfigured,
    NotSent,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)

OK = 0x00
#: What we answer to a delivery: taken later, never, and not one that we know.
TEMPORARY, PERMANENT, UNKNOWN_COMMAND = 0x64, 0x65, 0x03
#: What a careless SMSC's "no" without a status counts as.
UNKNOWN_ERROR = 0xFF
#: They are about the sender of a message.
SENDER_REFUSED = frozenset({0x0A, 0x48, 0x49})
#: SMPP names no wait.
_WAIT_SECONDS = 1.0
#: The SMSC knows neither this system_id nor this password: no repeat helps.
_WRONG_LOGIN = frozenset({0x0E, 0x0F})

CODES = Codes(
    "https://smpp.org/SMPP_v3_4_Issue1_2.pdf",
    {
        Throttled: {
            "0x14": Code(Throttled, "the SMSC's queue is full", wait=_WAIT_SECONDS),
            "0x58": Code(Throttled, "the account sends faster than its limit", wait=_WAIT_SECONDS),
        },
        Transient: {
            "0x08": "the SMSC broke",
            "0x45": "the SMSC could not take it over",
            "0x64": "the SMSC cannot take it for the moment",
            "0xFF": "the SMSC broke and does not say how",
        },
        RecipientRefused: {
            "0x0B": "the number is not one that the SMSC sends to",
            "0x50": "the SMSC does not take this type of number for a recipient",
            "0x51": "the SMSC does not take this numbering plan for a recipient",
            "0xFE": "the SMSC could not deliver it",
        },
        ContentRefused: {
            "0x01": "the SMSC takes no message of this length",
            "0x02": "the SMSC takes no request of this length",
            "0x03": "the SMSC does not know this request",
            "0x06": "the SMSC does not take this priority",
            "0x07": "the SMSC gives no receipts as they were asked for",
            "0x43": "the SMSC does not take messages of this kind, such as parts of a long one",
            "0x61": "the SMSC does not take this moment for its delivery",
            "0x62": "the SMSC does not take validity_seconds of this length",
            "0x65": "the SMSC will never take it",
            "0x66": "the SMSC rejects it",
            "0xC0": "an optional parameter is none that the SMSC can read",
            "0xC1": "an optional parameter is not allowed",
            "0xC2": "an optional parameter has a wrong length",
            "0xC3": "an optional parameter is missing",
            "0xC4": "an optional parameter has a wrong value",
        },
        Misconfigured: {
            "0x04": "the SMSC does not let this login send",
            "0x05": "this login is bound already, as often as the SMSC allows",
            "0x0A": "the sender is not one that this account may use",
            "0x0D": "the SMSC refuses the login and does not say why",
            "0x0E": "the password is wrong",
            "0x0F": "there is no such system_id",
            "0x15": "the SMSC does not take this type of service",
            "0x48": "the SMSC does not take this type of number for a sender",
            "0x49": "the SMSC does not take this numbering plan for a sender",
            "0x53": "the SMSC does not take this system_type",
        },
    },
)


def code_of(status: int) -> str:
    """A status as people write it: ``0x0B``, ``0x0400``."""
    return f"0x{status:02X}" if status < 0x100 else f"0x{status:04X}"


def refusal(status: int) -> SendError:
    """What a refused ``submit_sm`` means. The SMSC did not take it, whatever the status."""
    code = code_of(status)
    known = CODES.error(code)
    if known is not None:
        return known
    error = Transient(code, "the SMSC refused it with a code of its own; ask the vendor what it means")
    error.unmapped = True
    return error


def bind_refusal(status: int) -> SendError:
    """What a refused bind means for a message: nothing of it has left.

    A login that is wrong stops the account. All else may pass: a bind that the SMSC still holds from before a broken connection,
    say.
    """
    code, known = code_of(status), CODES.error(code_of(status))
    words = known.detail if known is not None else "a code of its own; ask the vendor what it means"
    detail = f"the SMSC refused the bind: {words}; look at system_id, password, system_type and the addresses it allows"
    return Misconfigured(code, detail) if status in _WRONG_LOGIN else NotSent(f"bind_{code}", detail)


def slows(status: int) -> bool:
    """Does the SMSC ask for less at once?"""
    return isinstance(CODES.error(code_of(status)), Throttled)
