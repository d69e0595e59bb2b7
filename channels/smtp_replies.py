"""What a mail server's refusal means: the basic code, the enhanced code and the verb it came at make a ``SendError``.

Called by the SMTP provider. RFC 5321 (4.2.1: a 4yz reply says that nothing was done), RFC 3463 and IANA's registry of
enhanced codes (https://www.iana.org/assignments/smtp-enhanced-status-codes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from aiosmtplib import SMTPDataError, SMTPRecipientRefused, SMTPResponseException, SMTPSenderRefused

from channels.answers import wait_seconds
from channels.base import ContentRefused, Misconfigured, NotSent, RecipientRefused, Scope, SendError, Throttled

_GREYLIST_SECONDS = 300.0
_FULL_SECONDS = 3600.0
_CAP_SECONDS = 3600.0
#: A full mailbox that is called permanent is tried so often before the recipient is given up.
_FULL_TRIES = 4

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")
#: "try again in 5 minutes", "retry after 300s", "come back in 00:05:00"
_WAIT = re.compile(r"\b(?:in|after|for)\s+(?:(\d{1,6})\s*(s|m|h)[a-z]*\b|(\d{1,2}):(\d{2}):(\d{2})\b)", re.IGNORECASE)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
_GREYLIST = re.compile(r"gr[ae]y-?list", re.IGNORECASE)
_RELAYING = re.compile(r"\brelay", re.IGNORECASE)


class Stage(StrEnum):
    """How far the dialogue had come when the server refused."""

    SESSION = "session"  # greeting, EHLO, STARTTLS, AUTH
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the verb, or the mail after its final dot


_STAGES: dict[type[SMTPResponseException], Stage] = {
    SMTPSenderRefused: Stage.MAIL,
    SMTPRecipientRefused: Stage.RCPT,
    SMTPDataError: Stage.DATA,
}

#: Credentials are asked for or refused, whatever the verb (RFC 4954).
_LOGIN_CODES = {530, 534, 535, 538}
#: The mailbox, or the domain, does not exist: writing again is of no use (RFC 3463; 5.1.10 and 5.7.17 f.: RFC 7505, 7293).
_GONE = {"5.1.1", "5.1.2", "5.1.6", "5.1.10", "5.7.17", "5.7.18"}
_RECIPIENT = {
    "5.1.0",
    "5.1.3",
    "5.1.4",
    "5.2.0",
    "5.2.1",
    "5.2.4",
    "5.4.0",
    "5.4.1",
    "5.4.4",
    "5.4.6",
    "5.6.7",
    "5.6.9",
}
_CONTENT = {"5.2.3", "5.3.4", "5.6.0", "5.6.1", "5.6.2", "5.6.3", "5.6.5", "5.6.6", "5.7.28"}
#: Who we are or how we sign ourselves is refused: SPF, DKIM, DMARC, PTR (RFC 7372), Exchange Online's own (5.7.5xx,
#: 5.7.6xx). It says nothing about the recipient.
_SENDER = re.compile(r"5\.1\.[78]|5\.7\.(?:[89]|1[1-4]|2[0-7]|57|60|64|5\d\d|6\d\d)")
#: The server as a whole, not one mailbox: its disk, its load.
_SERVER_BUSY = {"4.3.1", "4.3.2", "4.7.28"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. ``text`` may hold addresses and is shown to staff only."""

    stage: Stage
    code: int
    text: str

    @classmethod
    def of(cls, error: SMTPResponseException) -> Refusal:
        """The refusal that aiosmtplib raises."""
        return cls(_STAGES.get(type(error), Stage.SESSION), error.code, str(error.message))

    @property
    def enhanced(self) -> str:
        """RFC 3463's code in the text, empty where there is none or where it contradicts the basic code."""
        found = _ENHANCED.match(self.text)
        return found[1] if found and found[1][0] == str(self.code)[0] else ""

    @property
    def word(self) -> str:
        """The code to show and to search for."""
        return self.enhanced or str(self.code)


def classed(refusal: Refusal, attempt: int) -> SendError:
    """What ``refusal`` means for the message, at its ``attempt`` (from 1). None of these was accepted."""
    if 400 <= refusal.code < 500:
        return _put_off(refusal, attempt)
    if not 500 <= refusal.code < 600:
        return NotSent("unreadable_answer", f"the server does not speak SMTP at {refusal.stage}: {refusal.text}")
    if refusal.enhanced == "5.2.2" or (refusal.code == 552 and refusal.stage is Stage.RCPT and not refusal.enhanced):
        return _full(refusal, attempt)
    return _refused(refusal)


def _refused(refusal: Refusal) -> SendError:
    detail = f"{refusal.code} at {refusal.stage}: {refusal.text}"
    error = _by_code(refusal) or _by_stage(refusal)
    if error is RecipientRefused:
        return RecipientRefused(refusal.word, detail, suppress=refusal.enhanced in _GONE)
    return error(refusal.word, detail)


def _by_code(refusal: Refusal) -> type[SendError] | None:
    code, enhanced = refusal.code, refusal.enhanced
    if code in _LOGIN_CODES or refusal.stage is Stage.SESSION:
        return Misconfigured
    if enhanced in _CONTENT or (code == 552 and not enhanced):
        return ContentRefused
    if _SENDER.fullmatch(enhanced) or refusal.stage is Stage.MAIL:
        return Misconfigured
    return RecipientRefused if enhanced in _GONE | _RECIPIENT or code in (551, 553) else None


def _by_stage(refusal: Refusal) -> type[SendError]:
    """5.7.1 is said for anything: at RCPT that we may not relay, or that this mailbox does not want us."""
    if refusal.stage is Stage.DATA:
        return ContentRefused
    return Misconfigured if _RELAYING.search(refusal.text) else RecipientRefused


def _full(refusal: Refusal, attempt: int) -> SendError:
    detail = f"{refusal.code} at {refusal.stage}: {refusal.text}"
    if attempt >= _FULL_TRIES:
        return RecipientRefused(refusal.word, detail)
    return Throttled(refusal.word, detail, retry_after=_FULL_SECONDS, scope=Scope.RECIPIENT)


def _put_off(refusal: Refusal, attempt: int) -> Throttled:
    whole = refusal.code == 421 or refusal.stage is Stage.SESSION or refusal.enhanced in _SERVER_BUSY
    return Throttled(
        refusal.word,
        f"{refusal.code} at {refusal.stage}: {refusal.text}",
        retry_after=_wait(refusal, attempt),
        scope=Scope.ACCOUNT if whole else Scope.RECIPIENT,
    )


def _wait(refusal: Refusal, attempt: int) -> float:
    """Seconds: what the server says, else what such a refusal usually needs, else longer with each attempt."""
    stated = _WAIT.search(refusal.text)
    if stated:
        return wait_seconds(_stated_seconds(stated)) or 1.0
    if refusal.enhanced == "4.7.1" or _GREYLIST.search(refusal.text):
        return _GREYLIST_SECONDS
    if refusal.enhanced == "4.2.2":
        return _FULL_SECONDS
    return float(min(_CAP_SECONDS, 2 ** min(attempt, 16)))


def _stated_seconds(found: re.Match[str]) -> int:
    if found[1]:
        return int(found[1]) * _UNIT_SECONDS[found[2].lower()]
    return int(found[3]) * 3600 + int(found[4]) * 60 + int(found[5])
