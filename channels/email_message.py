"""What a mail looks like on the wire, and the guard against what must not get into it.

Called by the e-mail providers: ``faults`` at the door and before sending, ``compose`` to build the bytes. Django and
the standard library check header values only, and let a header *name* that holds a line break write headers of its
own (a ``Bcc``, for one); so names and values are both checked here, and names are taken from a list.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.policy import EmailPolicy
from email.quoprimime import body_encode
from email.utils import format_datetime, getaddresses
from secrets import token_hex
from typing import Any

from email_validator import EmailNotValidError, validate_email

from channels.base import Outbound
from channels.email_parts import File, with_files

HEADER_LIMIT = 900
DISPLAY_NAME_LIMIT = 120
_HEADERS_LIMIT = 20
#: RFC 5322, section 2.1.1: no line may be longer, the line break not counted.
_LINE_LIMIT = 998
#: Quoted-printable keeps a text readable for people who look at the source, and takes long to make.
_READABLE_LIMIT = 32 * 1024

#: What a service may add: nothing that says from whom, to whom or how the mail is to be read.
_ALLOWED = re.compile(
    r"(?:X|List)-[A-Za-z0-9-]+|Auto-Submitted|Feedback-ID|Importance|In-Reply-To|Keywords|Organization|Precedence"
    r"|Priority|References",
    re.IGNORECASE | re.ASCII,
)
#: Relays read orders in these, further recipients among them: SendGrid, Mandrill, SparkPost.
_ORDERS = ("x-smtpapi", "x-mc-", "x-msys-")
_NAME_LIMIT = 76
#: Controls of both sets, and what Python's ``splitlines`` takes for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: RFC 2047: decoded by whoever reads the header, line breaks and all.
_ENCODED_WORD = re.compile(r"=\?[^? ]+\?[bq]\?[^? ]*\?=", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")

MESSAGE_OPTIONS = {
    "reply_to": "where answers go, one address, instead of the account's reply_to",
    "unsubscribe": "true to let the reader's mail program offer to unsubscribe (RFC 8058), which suppresses the address",
    "headers": "more headers, name to value: X-..., List-..., References and the like",
}


class _Policy(EmailPolicy):
    """Leaves a header of ASCII on one line: the standard library would encode a long URL in List-Unsubscribe."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        text = str(value)
        if text.isascii() and not _CONTROL.search(text) and len(name) + len(text) + 2 <= _LINE_LIMIT:
            return f"{name}: {text}\r\n".encode()
        return super().fold_binary(name, value)


_POLICY = _Policy(linesep="\r\n", cte_type="7bit")
_UTF8_POLICY = _POLICY.clone(utf8=True)
#: Printable ASCII without a blank at either end: the same before and after parsing.
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
#: An address that leaves nothing to decide: the slow way takes it as it is, but for a domain in lower case. That looks at
#: each character several times: an eighth of the time of a mail.
_PLAIN_ADDRESS = re.compile(
    r"[a-z0-9]+(?:[._+-][a-z0-9]+)*@(?:[a-z0-9]+(?:-[a-z0-9]+)*\.)+(?:com|net|org|info|eu|[a-z]{2}|example)",
    re.IGNORECASE | re.ASCII,
)
_PLAIN_LIMIT = 64
_BREAK, _MIME = b"\r\n", b"MIME-Version: 1.0\r\n"
#: RFC 2045: lines of 76 characters, of which base64 makes 57 bytes.
_WIDTH, _BASE64_BYTES = 78, 57


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address with the name that people see. ``ascii`` says whether every server can take the address."""

    name: str
    address: str

    @property
    def ascii(self) -> bool:
        """Whether the address needs no SMTPUTF8 (RFC 6531)."""
        return self.address.isascii()

    @property
    def domain(self) -> str:
        """The part behind the @."""
        return self.address.rpartition("@")[2]

    def header(self) -> Address:
        """The form that ``EmailMessage`` takes."""
        return Address(self.name, self.address.rpartition("@")[0], self.domain)


def mailbox(text: str) -> Mailbox:
    """``Name <address>`` or an address, its domain in the ASCII form where there is one. Raises ``ValueError``."""
    if len(text) <= _PLAIN_LIMIT and _PLAIN_ADDRESS.fullmatch(text):
        local, _, domain = text.partition("@")
        return Mailbox("", f"{local}@{domain.lower()}")
    return _read(text)


def _read(text: str) -> Mailbox:
    fault = _text_fault(text)
    if fault:
        raise ValueError(fault)
    [(name, address), *more] = getaddresses([text]) or [("", "")]
    if more or not address or len(name) > DISPLAY_NAME_LIMIT:
        raise ValueError(f"must be one address, or Name <address> with at most {DISPLAY_NAME_LIMIT} characters of name")
    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from error
    return Mailbox(name, checked.ascii_email or checked.normalized)


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What an account puts on each of its mails. ``domain`` stands in the Message-ID."""

    sender: Mailbox
    domain: str
    reply_to: Mailbox | None = None

    def message_id(self, outbound: Outbound) -> str:
        """The same on every attempt, so that a mailbox that gets the mail twice can show it once."""
        return f"<{outbound.message_id}@{self.domain}>"


def faults(outbound: Outbound) -> dict[str, str]:
    """Field -> why it cannot go into a mail; empty where ``compose`` will pass."""
    found = {"subject": _header_fault(outbound.subject)}
    found |= {field: _body_fault(getattr(outbound, field)) for field in ("text", "html")}
    if outbound.options.get("reply_to") is not None:
        found["options.reply_to"] = _mailbox_fault(outbound.options["reply_to"])
    if outbound.options.get("headers") is not None:
        found["options.headers"] = _headers_fault(outbound.options["headers"])
    found["options.unsubscribe"] = _unsubscribe_fault(outbound.options)
    return {field: fault for field, fault in found.items() if fault}


def compose(outbound: Outbound, to: Mailbox, head: Letterhead, files: Sequence[File] = ()) -> bytes:
    """The whole mail, in lines that end in CRLF, of ASCII unless ``to`` needs SMTPUTF8.

    Only for what ``faults`` passes. ``files`` are the attachments with their bytes. The text comes first and the HTML after
    it, as alternatives. Without files the same bytes as
    ``email.message.EmailMessage`` makes of it, which parses each header that it is given: most of the time of a mail.
    """
    policy = _POLICY if to.ascii else _UTF8_POLICY
    top = b"".join(_line(name, value, policy) for name, value in _headers(outbound, to, head))
    if files:
        return top + _MIME + with_files([_part(*body) for body in _bodies(outbound)], files)
    if not (outbound.text and outbound.html):
        subtype, body = ("html", outbound.html) if outbound.html else ("plain", outbound.text)
        about, payload = _part(subtype, body)
        return top + about + _MIME + _BREAK + payload
    boundary = f"==============={token_hex(16)}=="
    parts = [_part("plain", outbound.text), _part("html", outbound.html)]
    marks = (b"", _MIME)  # as the standard library has it: the part that was added later says so again
    bodies = [about + mark + _BREAK + payload for (about, payload), mark in zip(parts, marks, strict=True)]
    line = b"--" + boundary.encode()
    kind = f'Content-Type: multipart/alternative; boundary="{boundary}"'.encode() + _BREAK
    between = _BREAK + line + _BREAK
    return top + _MIME + kind + _BREAK + line + _BREAK + between.join(bodies) + _BREAK + line + b"--" + _BREAK


def _bodies(outbound: Outbound) -> Iterator[tuple[str, str]]:
    """The text first, which also stands where there is neither, and the HTML after it."""
    if outbound.text or not outbound.html:
        yield "plain", outbound.text
    if outbound.html:
        yield "html", outbound.html


def _headers(outbound: Outbound, to: Mailbox, head: Letterhead) -> Iterator[tuple[str, Any]]:
    yield "From", head.sender.header()
    yield "To", to.header()
    if outbound.subject:
        yield "Subject", outbound.subject
    yield "Date", format_datetime(datetime.now(UTC))
    yield "Message-ID", head.message_id(outbound)
    asked = outbound.options.get("reply_to")
    reply_to = mailbox(asked) if asked else head.reply_to
    if reply_to:
        yield "Reply-To", reply_to.header()
    yield from unsubscribe_headers(outbound).items()
    yield from (outbound.options.get("headers") or {}).items()


def unsubscribe_headers(outbound: Outbound) -> dict[str, str]:
    """The headers of RFC 8058; none where the mail does not offer to unsubscribe."""
    url = outbound.unsubscribe_url
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if url else {}


def _line(name: str, value: str | Address, policy: EmailPolicy) -> bytes:
    """One header. What is plain ASCII is its own form; the rest the standard library folds and encodes."""
    text = str(value)
    if _PLAIN.fullmatch(text) and len(name) + len(text) + 2 <= _LINE_LIMIT:
        return f"{name}: {text}\r\n".encode()
    return policy.fold_binary(name, policy.header_factory(name, value))


def _part(subtype: str, text: str) -> tuple[bytes, bytes]:
    """What is said about a body, and the body itself, encoded only as far as it must be."""
    encoding, lines = _encoding(text), _lines(text).encode().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    about = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n'.encode()
    whole = _BREAK.join(lines) + _BREAK
    if encoding == "base64":
        pieces = (whole[start : start + _BASE64_BYTES] for start in range(0, len(whole), _BASE64_BYTES))
        return about, b"".join(b2a_base64(piece, newline=False) + _BREAK for piece in pieces)
    if encoding == "7bit":
        return about, whole
    readable = (b"\n".join(lines) + b"\n").decode("latin-1")
    return about, body_encode(readable, _WIDTH).replace("\n", "\r\n").encode("ascii")


def _lines(text: str) -> str:
    return _LINE_END.sub("\n", text)


def _encoding(text: str) -> str:
    if text.isascii() and all(len(line) <= _LINE_LIMIT for line in _LINE_END.split(text)):
        return "7bit"
    return "quoted-printable" if len(text) <= _READABLE_LIMIT and _mostly_ascii(text) else "base64"


def _mostly_ascii(text: str) -> bool:
    return sum(character > "\x7f" for character in text) * 6 < len(text)


def _text_fault(text: str) -> str:
    if _CONTROL.search(text):
        return "must not hold line breaks or other control characters"
    if _ENCODED_WORD.search(text):
        return "must be plain text: encoded words (=?utf-8?...?=) are made here"
    return "holds half a character (a lone surrogate)" if _SURROGATE.search(text) else ""


def _header_fault(text: str) -> str:
    fault = _text_fault(text)
    return fault or (f"must have at most {HEADER_LIMIT} characters" if len(text) > HEADER_LIMIT else "")


def _body_fault(text: str) -> str:
    return "holds half a character (a lone surrogate)" if _SURROGATE.search(text) else ""


def _unsubscribe_fault(options: Mapping[str, Any]) -> str:
    asked, headers = options.get("unsubscribe"), options.get("headers")
    if asked is not None and not isinstance(asked, bool):
        return "must be true or false"
    named = {str(name).lower() for name in headers} if isinstance(headers, Mapping) else set()
    clash = asked and named & {"list-unsubscribe", "list-unsubscribe-post"}
    return "must not be given together with a List-Unsubscribe header of your own" if clash else ""


def _mailbox_fault(given: object) -> str:
    try:
        found = mailbox(given) if isinstance(given, str) else None
    except ValueError as error:
        return str(error)
    if found is None:
        return "must be one address as a text"
    return "" if found.ascii else "must be an address that every mail server can take (ASCII before the @)"


def _headers_fault(given: object) -> str:
    if not isinstance(given, Mapping) or len(given) > _HEADERS_LIMIT:
        return f"must be an object of at most {_HEADERS_LIMIT} headers, name to value"
    for name, value in given.items():
        if not isinstance(name, str) or len(name) > _NAME_LIMIT or not _ALLOWED.fullmatch(name):
            return (
                f"must not set {str(name)[:_NAME_LIMIT]!r}; a service may set X-..., List-..., References and the like"
            )
        if name.lower().startswith(_ORDERS):
            return f"must not set {name}: relays take orders from it"
        fault = _header_fault(value) if isinstance(value, str) else "must be a text"
        if fault:
            return f"{name} {fault}"
    names = [str(name).lower() for name in given]
    return "" if len(set(names)) == len(names) else "must not name a header twice"
