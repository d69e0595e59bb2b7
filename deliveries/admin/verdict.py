"""The first question of support: did the customer get it, and if not, why? Answered in one sentence per status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from channels.registry import UnknownProvider, provider_class
from chaski.vocabulary import ErrorClass, Status
from deliveries.admin.showing import ERRORS, error, moment, plain
from deliveries.models import Message
from deliveries.reading import RECEIPT_WINDOW
from deliveries.trace import Trace


@dataclass(frozen=True, slots=True)
class Verdict:
    """``answer`` in a word or two, ``because`` in a sentence, ``advice`` what to do (empty when nothing is)."""

    answer: str
    because: str
    advice: str = ""


def verdict(found: Trace, now: datetime) -> Verdict:
    """What to tell the customer about the message of ``found``. ``now`` is the database's time."""
    return _VERDICTS[found.status](found, now)


def reason_of(message: Message) -> str:
    """The error that stands, in words with the provider's code and text."""
    if not message.error_class:
        return ""
    said = ": ".join(plain(part, 300) for part in (message.error_code, message.error_detail) if part)
    words = error(message.error_class)
    return f"{words} ({said})" if said else words


def _queued(found: Trace, now: datetime) -> Verdict:
    last = reason_of(found.message)
    before = f" The last attempt: {last}." if last else ""
    if found.waits:
        return Verdict("Not yet", f"It {found.waits}.{before}")
    return Verdict("Not yet", f"It is due and waits for a worker.{before}", "If it stays so, look at the processes.")


def _sent(found: Trace, now: datetime) -> Verdict:
    message = found.message
    taken = f"{message.provider} took it over at {moment(message.sent_at)} UTC"
    if not _proves(message):
        return Verdict("Probably", f"{taken}. This provider tells no more.")
    if now - message.updated_at > RECEIPT_WINDOW:
        return Verdict("Probably", f"{taken}, and no receipt came in three days.", "Ask the provider by its id.")
    return Verdict("Probably", f"{taken}; its receipt has not come yet.")


def _failed(found: Trace, now: datetime) -> Verdict:
    why = f"{_capital(reason_of(found.message) or 'it failed')}."
    if found.last_reply:
        why += f" {_capital(found.last_reply)}."
    return Verdict("No", why, "Mend the cause, then redeliver.")


def _expired(found: Trace, now: datetime) -> Verdict:
    last = reason_of(found.message)
    before = f" The last attempt: {last}." if last and found.message.error_class != "expired" else ""
    ended = moment(found.message.expires_at)
    return Verdict(
        "No", f"Its time ran out at {ended} UTC before it could be sent.{before}", "Redeliver if still wanted."
    )


_VERDICTS: dict[Status, Callable[[Trace, datetime], Verdict]] = {
    Status.QUEUED: _queued,
    Status.SENDING: lambda found, now: Verdict("Not yet", "A worker is sending it at this moment."),
    Status.SENT: _sent,
    Status.DELIVERED: lambda found, now: Verdict(
        "Yes", f"The provider reported delivery at {moment(found.message.delivered_at)} UTC."
    ),
    Status.READ: lambda found, now: Verdict("Yes", f"The recipient read it at {moment(found.message.read_at)} UTC."),
    Status.UNDELIVERED: lambda found, now: Verdict(
        "No",
        f"The provider took it over and gave it up later. {_capital(_receipt_of(found))}",
        "Redeliver if the recipient can be reached again.",
    ),
    Status.FAILED: _failed,
    Status.EXPIRED: _expired,
    Status.CANCELED: lambda found, now: Verdict(
        "No", "It was withdrawn before it was sent; the timeline says by whom."
    ),
    Status.SUPPRESSED: lambda found, now: Verdict(
        "No", "The recipient must not be written to on this channel.", "The list of suppressions says why."
    ),
    Status.IN_DOUBT: lambda found, now: Verdict(
        "Nobody knows",
        f"It was handed over and {ERRORS[ErrorClass.IN_DOUBT]}.",
        "Look for it in the provider's own records, then say below what you found.",
    ),
}


def _proves(message: Message) -> bool:
    try:
        return provider_class(message.channel, message.provider).receipts
    except UnknownProvider:
        return False


def _receipt_of(found: Trace) -> str:
    said = [entry.data for entry in found.entries if entry.kind == "receipt" and entry.data["kind"] == "undelivered"]
    if not said:
        return ""
    parts = [plain(said[-1][name], 300) for name in ("code", "detail") if said[-1][name]]
    return f"its receipt says {' '.join(parts)}." if parts else ""


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
