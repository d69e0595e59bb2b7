"""What comes back from a vendor: its request before anything was parsed, and what it says about a message.

Made by the receipts endpoint (``InboundRequest``) and by providers (``Receipt``); see ``Provider.verify`` and ``Provider.parse``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Forged(Exception):
    """A receipt whose signature is missing, wrong or too old. Its text is for our log, never for the caller."""


class Unreadable(Exception):
    """A receipt with a good signature whose body is not what the vendor documents."""


@dataclass(frozen=True, slots=True)
class InboundRequest:
    """What a vendor posted to us, before anything was parsed. ``url`` is the public URL, header names are lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


class ReceiptKind(StrEnum):
    """What a receipt says; the first three and the last move a message, ``info`` is only kept."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    INFO = "info"
    UNDELIVERED = "undelivered"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a provider tells us later about one message.

    ``event_id`` is unique per account and the same when the vendor repeats the receipt. Found by ``message_id`` where
    the vendor echoes it, else by ``provider_message_id``. ``at`` is the vendor's own aware UTC time, if it gives one.
    """

    event_id: str
    kind: ReceiptKind
    provider_message_id: str = ""
    message_id: str = ""
    at: datetime | None = None
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person wrote to us through an account.

    ``event_id`` is as in ``Receipt``. ``sender`` is the person as a recipient of the channel would be given, not normalised.
    ``text`` is what was written, or what a button says. ``files`` are the vendor's ids or URLs of what came with it.
    ``answers`` is the vendor's id of the message that is answered, where the person chose one. ``at`` is the vendor's time.
    """

    event_id: str
    sender: str
    text: str = ""
    name: str = ""
    files: tuple[str, ...] = ()
    answers: str = ""
    at: datetime | None = None
