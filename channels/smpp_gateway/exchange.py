"""What workers, the gateway and the receipts endpoint say to each other: JSON, signed with the account's ``gateway_secret``.

Written and read by the SMPP provider and by the gateway. Fields may be added with defaults and never renamed, for both sides may
be of two releases.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

ACCOUNT_HEADER, SIGNATURE_HEADER = "X-Chaski-Account", "X-Chaski-Signature"
#: What a bind depends on. An account that differs in one of these is another one to the gateway.
BOUND_BY = ("host", "port", "security", "system_id", "password", "system_type", "binds", "window", "gateway_secret")

Octet = Annotated[int, msgspec.Meta(ge=0, le=255)]
Number = Annotated[str, msgspec.Meta(max_length=20)]
Said = TypeVar("Said", "Submission", "Answer", "Report")


class Purpose(StrEnum):
    """What a signature is for: one that was seen is good for nothing else."""

    ACCOUNT = "account"
    SUBMIT = "submit"
    REPORT = "report"


class NotSaid(ValueError):
    """A body that is not what the other side says."""


@dataclass(frozen=True, slots=True)
class Address:
    """A sender or recipient: type of number, numbering plan, and its digits or letters."""

    digits: Number
    ton: Octet = 0
    npi: Octet = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """One message to send. ``parts`` are ``short_message`` octets; ``seconds`` is for how long the worker waits.

    ``validity`` is SMPP's relative time, empty for the SMSC's own.
    """

    message_id: Annotated[str, msgspec.Meta(max_length=64)]
    source: Address
    destination: Address
    data_coding: Octet
    parts: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=254)], ...], msgspec.Meta(min_length=1, max_length=255)
    ]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)]
    validity: Annotated[str, msgspec.Meta(pattern=r"\A([0-9]{15}R)?\Z")] = ""


class Outcome(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"  # every part was taken
    REFUSED = "refused"  # by the SMSC, with a status
    BIND_REFUSED = "bind_refused"  # nothing was written: the SMSC does not let us in, with a status
    NOT_SENT = "not_sent"  # nothing was written
    BUSY = "busy"  # nothing was written: the window was full all the time
    IN_DOUBT = "in_doubt"  # something was written, and not all of it was answered


@dataclass(frozen=True, slots=True)
class Answer:
    """``provider_message_id`` is that of the last part, for which a receipt was asked; ``taken`` how many were, where not all."""

    outcome: Outcome
    provider_message_id: str = ""
    status: int = 0
    taken: int = 0
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A ``deliver_sm``: a receipt, or what a person wrote. ``message`` is ``short_message``, or the payload in its place."""

    source: Address
    destination: Address
    esm_class: Octet = 0
    data_coding: Octet = 0
    message: bytes = b""
    parameters: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """The SMSC took a message after its worker had been told that this is in doubt."""

    message_id: str
    provider_message_id: str


@dataclass(frozen=True, slots=True)
class Report:
    """One of the two. ``event`` is the same when the gateway reports the same thing again."""

    event: str
    delivered: Delivered | None = None
    taken: Taken | None = None


def written(said: Submission | Answer | Report) -> bytes:
    """As JSON; octets in base64."""
    return msgspec.json.encode(said)


def read(body: bytes, kind: type[Said]) -> Said:
    """What ``body`` says. Raises ``NotSaid``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotSaid(type(error).__name__) from error


def signature(secret: str, purpose: Purpose, body: bytes) -> str:
    """Hexadecimal HMAC-SHA256 of ``body`` for ``purpose``."""
    return hmac.new(secret.encode(), f"{purpose}\n".encode() + body, hashlib.sha256).hexdigest()


def is_signed(secret: str, purpose: Purpose, body: bytes, given: str) -> bool:
    """Is ``given`` the signature? In constant time."""
    return hmac.compare_digest(signature(secret, purpose, body).encode(), given.encode(errors="replace"))


def account_key(settings: Mapping[str, str], receipts_url: str) -> str:
    """How a worker names its account to the gateway: another one as soon as what the bind depends on is, and telling none of it.

    So a worker that knows the account as it was, or as it will be, never hears what the bind of another login came to.
    """
    bound = [receipts_url, *(settings[name] for name in BOUND_BY)]
    return signature(settings["gateway_secret"], Purpose.ACCOUNT, msgspec.json.encode(bound))
