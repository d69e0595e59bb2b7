"""E-mail through one SMTP server (a relay, a vendor's submission port), one recipient per transaction.

Used by the delivery engine. A mail is the server's once it has answered the final dot (RFC 5321, 4.1.1.4 and 6.1): what
fails before the dot has left is safe to repeat, and only silence after it is in doubt.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from aiosmtplib import SMTPConnectError, SMTPException, SMTPNotSupported, SMTPResponseException

from channels import email_message
from channels.attachments import Carriage, Kind, Takes
from channels.base import (
    Accepted,
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
)
from channels.email_message import Letterhead, Mailbox, mailbox
from channels.email_parts import content_of
from channels.http import HttpClient
from channels.smtp_connections import Connections, Server
from channels.smtp_dialogue import Envelope
from channels.smtp_replies import Refusal, classed
from channels.written import tell_written

_PORTS = {"none": "25", "starttls": "587", "tls": "465"}
_CONNECTIONS_LIMIT = 50
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_MESSAGE_ID, _NO_ID = "{message_id}", "0" * 36
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(slots=True)
class _Progress:
    dot_sent: bool = False


class Smtp(Provider):
    """SMTP has no idempotency key; the Message-ID stays the same, and some mailboxes show a repeat once by it."""

    name = "smtp"
    channels = ("email",)
    #: The server may take its time over the final dot: RFC 5321, 4.5.3.2.6 asks clients for ten minutes of patience.
    deadline_seconds = 120.0
    lease_seconds = 180.0
    call_seconds = 105.0
    window = 100
    #: What most servers take, in base64, is 25 to 35 MB; a smaller limit of a server is told by it before the mail is sent.
    takes = Takes(Carriage.ENCLOSED, 20, dict.fromkeys(Kind, 25_000_000), 25_000_000)
    options = (
        Option("host", "the mail server's name or address", required=True),
        Option("port", "its port; 587, 465 or 25 by the kind of security if not given"),
        Option("security", "starttls, tls (from the first byte) or none", default="starttls"),
        Option("from", "the sender that people see: an address, or Name <address>", required=True),
        Option("username", "the login, where the server wants one"),
        Option("password", "the login's password", secret=True),
        Option("reply_to", "where answers go, if not to the sender"),
        Option("envelope_from", "where bounces go, if not to the sender; {message_id} in it becomes the message's id"),
        Option("message_id_domain", "the domain in Message-ID and EHLO, the sender's if not given"),
        Option("ca_file", "a PEM file with the authorities to trust instead of the system's"),
        Option("connections", f"how many one worker process may hold open, 1 to {_CONNECTIONS_LIMIT}", default="10"),
    )
    message_options = email_message.MESSAGE_OPTIONS

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        sender = mailbox(settings["from"])
        reply_to = settings.get("reply_to")
        own = settings.get("message_id_domain")
        domain = mailbox(f"postmaster@{own}").domain if own else sender.domain
        self._head = Letterhead(sender, domain, mailbox(reply_to) if reply_to else None)
        self._envelope_from = _bare(settings.get("envelope_from") or sender.address)
        security = settings.get("security") or "starttls"
        server = Server(
            host=settings["host"],
            port=int(settings.get("port") or _PORTS[security]),
            tls=security,
            helo=domain,
            username=settings.get("username", ""),
            password=settings.get("password", ""),
            ca_file=settings.get("ca_file", ""),
        )
        self._connections = Connections(server, int(settings.get("connections") or 10))

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; addresses are read, and a password is not sent in the clear but on the machine itself."""
        checked = super().check(settings)
        if checked["security"] not in _PORTS:
            raise InvalidOption("security", "must be starttls, tls or none")
        checked["port"] = checked["port"] or _PORTS[checked["security"]]
        _check_number(checked, "port", 65_535)
        _check_number(checked, "connections", _CONNECTIONS_LIMIT)
        if not _HOST.fullmatch(checked["host"]):
            raise InvalidOption("host", "must be a host name or an address")
        _check_addresses(checked)
        _check_login(checked)
        _check_authorities(checked["ca_file"])
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """What cannot stand in a mail: line breaks in headers, headers of our own, half characters."""
        return super().refuse(outbound) | email_message.faults(outbound)

    async def send(self, outbound: Outbound) -> Accepted:
        """One transaction. Raises a ``SendError``."""
        to = _recipient(outbound)
        progress = _Progress()
        try:
            async with asyncio.timeout(self.call_seconds):
                content = await self._mail(outbound, to)
                said = await self._transaction(outbound, to, content, progress)
        except SMTPResponseException as error:
            raise self._refusal(error, outbound, progress) from None
        except SMTPNotSupported as error:
            raise RecipientRefused("smtputf8_missing", f"the address is not ASCII and {error.message}") from None
        except (SMTPException, OSError) as error:  # TimeoutError is an OSError
            raise _failure(error, progress) from None
        return Accepted(self._head.message_id(outbound), self._shown(said, outbound))

    async def close(self) -> None:
        """End the kept sessions."""
        await self._connections.close()

    async def _mail(self, outbound: Outbound, to: Mailbox) -> bytes:
        if not outbound.attachments:
            return email_message.compose(outbound, to, self._head)
        files = [(each, await content_of(each)) for each in outbound.attachments]
        # Megabytes of base64 take longer than others on this loop should wait.
        return await asyncio.to_thread(email_message.compose, outbound, to, self._head, files)

    async def _transaction(self, outbound: Outbound, to: Mailbox, content: bytes, progress: _Progress) -> str:
        sender = self._envelope_from.replace(_MESSAGE_ID, outbound.message_id)
        envelope = Envelope(sender, to.address, len(content), utf8=not to.ascii)
        # A mail that gets its session late would be cut off after its final dot, which is worse than to come again.
        async with self._connections.begun(envelope, patience=self.call_seconds / 2) as dialogue:
            # A connection that breaks in the middle of a long mail can then be told from one that breaks after the dot.
            await dialogue.hand_over(content)
            dialogue.finish()
            progress.dot_sent = True
            tell_written()
            return (await dialogue.verdict()).text

    def _refusal(self, error: SMTPResponseException, outbound: Outbound, progress: _Progress) -> SendError:
        shown = self._shown(str(error.message), outbound)
        if progress.dot_sent and not 400 <= error.code < 600:
            return InDoubt("unreadable_answer", f"the mail was sent and the answer is not SMTP: {shown}")
        refusal = Refusal.of(error)
        return classed(Refusal(refusal.stage, refusal.code, shown), outbound.attempt)

    def _shown(self, text: str, outbound: Outbound) -> str:
        """A server's words on one line, without our password and without the address that it repeats."""
        line = " ".join(text.encode(errors="replace").decode().split())
        return self.redact(line).replace(outbound.to, "[recipient]")


def _recipient(outbound: Outbound) -> Mailbox:
    """Whom it goes to. Raises a ``SendError`` for what cannot be a mail."""
    faults = email_message.faults(outbound)
    if faults:
        raise ContentRefused("unmailable", "; ".join(f"{field} {fault}" for field, fault in faults.items()))
    try:
        return mailbox(outbound.to)
    except ValueError as error:
        raise RecipientRefused("invalid_address", str(error)) from None


def _bare(text: str) -> str:
    """The address as the envelope has it: no name, the domain in ASCII; ``{message_id}`` stays where it is."""
    return mailbox(text.replace(_MESSAGE_ID, _NO_ID)).address.replace(_NO_ID, _MESSAGE_ID)


def _failure(error: Exception, progress: _Progress) -> SendError:
    if progress.dot_sent:
        if isinstance(error, TimeoutError):
            return InDoubt("timeout", "the mail was sent and the server did not answer in time")
        return InDoubt("connection_lost", "the mail was sent and the connection ended before the answer")
    cause = error.__cause__ if isinstance(error, SMTPConnectError) and error.__cause__ else error
    if isinstance(error, SMTPException) and not isinstance(error, OSError):
        return Misconfigured("unsupported", f"the server lacks what the account asks for: {error.message}")
    return _not_sent(cause)


def _not_sent(cause: BaseException) -> NotSent:
    if isinstance(cause, socket.gaierror):
        return NotSent("dns", "the server's name could not be resolved")
    if isinstance(cause, ssl.SSLError):
        return NotSent("tls", f"no TLS connection ({cause.reason}); look at the certificate and the host name")
    if isinstance(cause, TimeoutError):
        return NotSent("timeout", "the server did not answer in time; the mail was not handed over")
    if isinstance(cause, ConnectionRefusedError):
        return NotSent("refused", "the server refuses connections on this port")
    return NotSent("connection_lost", "the connection ended before the mail was handed over")


def _check_number(checked: Mapping[str, str], name: str, limit: int) -> None:
    text = checked[name]
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= limit):
        raise InvalidOption(name, f"must be a whole number from 1 to {limit}")


def _check_addresses(checked: Mapping[str, str]) -> None:
    filled = checked["envelope_from"].replace(_MESSAGE_ID, _NO_ID)
    domain = checked["message_id_domain"]
    for name, text in (
        ("from", checked["from"]),
        ("reply_to", checked["reply_to"]),
        ("envelope_from", filled),
        ("message_id_domain", domain and f"postmaster@{domain}"),
    ):
        try:
            found = mailbox(text) if text else None
        except ValueError as error:
            raise InvalidOption(name, str(error)) from error
        if found and not found.ascii:
            raise InvalidOption(name, "must be an address that every mail server can take (ASCII before the @)")


def _check_login(checked: Mapping[str, str]) -> None:
    if bool(checked["username"]) != bool(checked["password"]):
        raise InvalidOption("username", "give both username and password, or neither")
    if checked["username"] and checked["security"] == "none" and checked["host"] not in _LOOPBACK:
        raise InvalidOption("security", "none would send the password in the clear; use starttls or tls")


def _check_authorities(ca_file: str) -> None:
    if ca_file:
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is an OSError
            raise InvalidOption("ca_file", f"cannot be read as PEM certificates: {error}") from error
