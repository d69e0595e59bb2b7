"""The faults that a recipient's address asks for: one table, and how it is written on each channel.

Read by the simulator's servers, by the ``sandbox`` provider and by the reference page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What the vendor does with a request."""

    ACCEPT = "accept"
    THROTTLE = "throttle"
    HANG = "hang"
    RESET = "reset"
    SERVER_ERROR = "server_error"
    REFUSE_RECIPIENT = "refuse_recipient"
    REFUSE_CONTENT = "refuse_content"
    REFUSE_LOGIN = "refuse_login"
    RUBBISH = "rubbish"


class Receipts(StrEnum):
    """Which receipts follow an accepted message, where the vendor sends any."""

    USUAL = "sent, delivered"
    LATE = "sent, delivered late"
    DOUBLED = "each twice"
    REVERSED = "delivered, sent"
    UNDELIVERED = "sent, undelivered"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: the fault's word, its four digits in numbers, and what happens.

    ``kept`` says that the message was accepted (and is in the ledger) whatever the sender is told. ``once``
    says that the next attempt of the same message is accepted.
    """

    word: str
    digits: str
    act: Act
    says: str
    kept: bool = False
    once: bool = False
    receipts: Receipts = Receipts.USUAL


_ROWS = (
    Fault("ok", "0200", Act.ACCEPT, "accepted", kept=True),
    Fault("throttle", "0429", Act.THROTTLE, "told to wait 1 s; the next attempt is accepted", once=True),
    Fault("always_throttle", "1429", Act.THROTTLE, "told to wait 1 s, every time"),
    Fault("timeout_before", "0408", Act.HANG, "no answer; not accepted"),
    Fault("timeout_after", "1408", Act.HANG, "accepted; no answer", kept=True),
    Fault("reset", "0104", Act.RESET, "connection reset; not accepted"),
    Fault("reset_after", "1104", Act.RESET, "accepted; connection reset", kept=True),
    Fault("server_error", "0500", Act.SERVER_ERROR, "an error 500; the next attempt is accepted", once=True),
    Fault("reject", "0404", Act.REFUSE_RECIPIENT, "the recipient is refused for good"),
    Fault("reject_content", "0422", Act.REFUSE_CONTENT, "the content is refused for good"),
    Fault("auth", "0401", Act.REFUSE_LOGIN, "the account's credentials are refused"),
    Fault("rubbish", "0299", Act.RUBBISH, "accepted; the answer is a success that cannot be read", kept=True),
    Fault("late_receipt", "0210", Act.ACCEPT, "accepted; delivered late", kept=True, receipts=Receipts.LATE),
    Fault(
        "doubled_receipt",
        "0211",
        Act.ACCEPT,
        "accepted; receipts twice",
        kept=True,
        receipts=Receipts.DOUBLED,
    ),
    Fault(
        "reversed_receipt",
        "0212",
        Act.ACCEPT,
        "accepted; delivered before sent",
        kept=True,
        receipts=Receipts.REVERSED,
    ),
    Fault(
        "undelivered",
        "0213",
        Act.ACCEPT,
        "accepted; later given up",
        kept=True,
        receipts=Receipts.UNDELIVERED,
    ),
)

FAULTS: dict[str, Fault] = {row.word: row for row in _ROWS}
OK = FAULTS["ok"]
#: What a seeded run draws from: the failures that a retry can mend.
BY_SEED = tuple(
    FAULTS[word]
    for word in (
        "throttle",
        "server_error",
        "reset",
        "reset_after",
        "timeout_before",
        "timeout_after",
        "rubbish",
    )
)

PHONE_PREFIX = "+5690000"
TELEGRAM_PREFIX = "900000"
_BY_DIGITS = {row.digits: row for row in _ROWS}
_NUMBER = re.compile(rf"(?:{re.escape(PHONE_PREFIX)}|{TELEGRAM_PREFIX})([0-9]{{4}})\Z")
_WORD = re.compile(r"(?:^|/)fault[./]([a-z_]+)(?=$|[@/?.])")


def fault_of(to: str) -> Fault:
    """The fault that the recipient ``to`` asks for on any channel; ``ok`` for an ordinary one."""
    number = _NUMBER.match(to)
    if number:
        return _BY_DIGITS.get(number[1], OK)
    word = _WORD.search(to)
    return FAULTS.get(word[1], OK) if word else OK


def addresses(fault: Fault) -> dict[str, str]:
    """How to ask for ``fault`` on each channel that has its own form; the others take the last."""
    return {
        "sms, whatsapp": f"{PHONE_PREFIX}{fault.digits}",
        "email": f"fault.{fault.word}@example.com",
        "telegram": f"{TELEGRAM_PREFIX}{fault.digits}",
        "webhook": f"https://example.com/fault/{fault.word}",
        "others": f"fault.{fault.word}",
    }


def table() -> str:
    """The reference page's table, in Markdown."""
    head = ("fault", *addresses(OK), "what happens")
    return "\n".join(
        (
            "| " + " | ".join(head) + " |",
            "|" + " --- |" * len(head),
            *(f"| {' | '.join(_cells(row))} |" for row in _ROWS),
            "",
        )
    )


def _cells(row: Fault) -> Iterator[str]:
    yield f"`{row.word}`"
    yield from (f"`{address}`" for address in addresses(row).values())
    yield row.says
