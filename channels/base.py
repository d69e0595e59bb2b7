"""What a provider is: the contract between the delivery engine and one vendor's wire.

Called by the delivery engine (``send``), by the receipts endpoint (``verify``, ``parse``) and by intake
(``normalise``, ``refuse``). A provider turns an ``Outbound`` into bytes and a vendor's answer into ``Accepted`` or a
``SendError`` (``channels.errors``); it sees no database and no queue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from channels.attachments import Attachment, Takes
from channels.errors import (
    DETAIL_LIMIT,
    ContentRefused,
    InDoubt,
    Misconfigured,
    NotAllowedNow,
    NotSent,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.inbound import Forged, InboundRequest, Receipt, ReceiptKind, Reply, Unreadable
from channels.rates import InvalidRate, Rates, parse

if TYPE_CHECKING:
    from channels.http import HttpClient

__all__ = [
    "DETAIL_LIMIT",
    "Accepted",
    "Attachment",
    "ContentRefused",
    "Forged",
    "InDoubt",
    "InboundRequest",
    "InvalidOption",
    "InvalidRecipient",
    "Misconfigured",
    "NotAllowedNow",
    "NotSent",
    "Option",
    "Outbound",
    "Provider",
    "Receipt",
    "ReceiptKind",
    "RecipientRefused",
    "Reply",
    "Scope",
    "SendError",
    "Takes",
    "Throttled",
    "Transient",
    "Unreadable",
]


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of an account at a provider, as `manage.py account create` and the admin ask for it."""

    name: str
    help: str
    required: bool = False
    secret: bool = False
    default: str = ""


#: What every account takes besides its provider's own options.
PACE = (
    Option("rate", "at most so many messages in a time through this account: 80/s, 15/15m; none lifts the usual one"),
    Option("recipient_rate", "the same to each recipient: 1/6s; none lifts the usual one"),
)


@dataclass(frozen=True, slots=True)
class Outbound:
    """One message as it goes to a provider, for one attempt.

    ``message_id`` is the UUIDv7 in its canonical form and the same on every attempt: use it wherever the vendor takes a
    reference or an idempotency key. ``to`` is normalised for the channel. ``attempt`` counts from 1.
    ``receipts_url`` is where the vendor should report to, empty where the account has none. ``at`` is the time to put where
    the vendor wants one, aware: that of the database, for a worker's own clock may be wrong.
    """

    message_id: str
    channel: str
    to: str
    attempt: int = 1
    text: str = ""
    subject: str = ""
    html: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    receipts_url: str = ""
    attachments: tuple[Attachment, ...] = ()
    #: Where the reader asks for no more of these (RFC 8058); empty where the message does not offer that.
    unsubscribe_url: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor took the message over. ``provider_message_id`` is empty where the vendor gives none.

    ``rest_seconds``: for so long it takes nothing more through the account, by what its answer says is left; None: it does,
    or does not say.
    """

    provider_message_id: str = ""
    detail: str = ""
    rest_seconds: float | None = None


class InvalidRecipient(ValueError):
    """A recipient that the channel cannot take; the text says what was expected."""


class InvalidOption(ValueError):
    """An account or message option that the provider cannot take; ``name`` is the option."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Provider(ABC):
    """The code that talks to one vendor through one account. One instance per account and worker process.

    ``send`` runs on the worker's asyncio loop, many at once: it must not block and must keep no state per message.
    """

    #: The word in `manage.py account create CHANNEL PROVIDER`.
    name: ClassVar[str]
    #: The channels it can serve.
    channels: ClassVar[tuple[str, ...]]
    #: Does the vendor accept our key and deliver one message for it, however often we ask?
    idempotent: ClassVar[bool] = False
    #: Can the vendor be asked whether it has a message (``find``)? What it took it shows after so many seconds.
    reconciles: ClassVar[bool] = False
    find_after_seconds: ClassVar[float] = 60.0
    #: Can the vendor send receipts to us, and can they say "read"?
    receipts: ClassVar[bool] = False
    reads: ClassVar[bool] = False
    #: Does the vendor pass on to us what people write?
    replies: ClassVar[bool] = False
    #: Whole time of one attempt in seconds, counted from before the claim; the lease is three times an HTTP deadline.
    deadline_seconds: ClassVar[float] = 20.0
    lease_seconds: ClassVar[float] = 60.0
    #: How long ``send`` waits for the vendor. Less than the deadline, so that a hang is classed in ``send``, which
    #: knows whether anything had left, and not by a cancellation from outside.
    call_seconds: float = 15.0
    #: How many calls one worker process may have under way through one account, however quick the answers.
    window: ClassVar[int] = 500
    #: Does one host answer all calls of an account, so that its answers tell how many calls at once it can take?
    one_host: ClassVar[bool] = True
    #: How fast the vendor takes messages, unless the account's options say otherwise.
    usual_rates: ClassVar[Rates] = Rates()
    options: ClassVar[Sequence[Option]] = ()
    #: The files that a message may carry; None: it carries none.
    takes: ClassVar[Takes | None] = None
    #: Codes of receipts which say that the vendor could not use a file that it had been given.
    media_codes: ClassVar[frozenset[str]] = frozenset()
    #: What ``send`` understands in a message's own ``options``: name -> what it does.
    message_options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        """``settings`` are the account's options and secrets together, checked by ``check``, defaults filled in."""
        self.settings = settings
        self.http = http

    @property
    def base_url(self) -> str:
        """Where the account's API is, by its option of that name or the option's default; no slash at its end."""
        usual = {option.name: option.default for option in self.options}
        return (self.settings.get("base_url") or usual["base_url"]).rstrip("/")

    @abstractmethod
    async def send(self, outbound: Outbound) -> Accepted:
        """Hand one message to the vendor. Raises a ``SendError``; anything else counts as in doubt."""

    async def find(self, outbound: Outbound, since: datetime) -> Accepted | None:
        """What the vendor has of a message whose answer never came; None where it is certain that it has nothing.

        Only for providers that say ``reconciles``; called ``find_after_seconds`` after the request at the earliest. It must
        change nothing at the vendor. ``since`` is the aware UTC time before the first request, by our clock. Raises a
        ``SendError`` where it cannot tell: no answer, or more than one message that it may be. A doubt is no "nothing",
        for after "nothing" the message is sent again.
        """
        raise InDoubt("cannot_be_asked", f"{self.name} cannot be asked for a message")

    def media_place(self, attachment: Attachment) -> str:
        """Where, and as what, a media id of ``attachment`` holds (``Carriage.KEPT``): two with one place may share it.

        It changes with whatever makes the vendor forget: another number, bot or page, another host, another kind of file.
        """
        return f"{self.base_url} {attachment.content_type}"

    def redact(self, text: str) -> str:
        """A vendor's ``text`` with the account's secrets blanked, fit for ``SendError.detail``."""
        for option in self.options:
            secret = self.settings.get(option.name, "") if option.secret else ""
            text = text.replace(secret, "[secret]") if secret else text
        return text

    async def close(self) -> None:  # noqa: B027 - a hook that most providers do not need
        """Give back what is held open (pools, sessions); called when the account changes or the process ends."""

    def greet(self, request: InboundRequest) -> bytes | None:
        """What the vendor wants to hear back before it reports anything; None for what is no handshake. Raises ``Forged``."""
        return None

    def verify(self, request: InboundRequest) -> None:
        """Check that the vendor sent this, on the raw bytes and in constant time. Raises ``Forged``."""
        raise Forged(f"{self.name} sends no receipts")

    def parse(self, request: InboundRequest) -> Sequence[Receipt | Reply]:
        """What a verified request says: of our messages, and what people write. Raises ``Unreadable``."""
        raise Unreadable(f"{self.name} sends no receipts")

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The account's settings with defaults filled in. Raises ``InvalidOption`` for unknown or missing ones, and for
        values that are no text or cannot be sent as UTF-8."""
        known = {option.name: option for option in (*cls.options, *PACE)}
        for name, value in settings.items():
            if name not in known:
                raise InvalidOption(name, f"{cls.name} has no such option; it knows {', '.join(known) or 'none'}")
            _insist_on_text(name, value)
        for option in cls.options:
            if option.required and not settings.get(option.name):
                raise InvalidOption(option.name, f"{cls.name} needs it: {option.help}")
        base_url = settings.get("base_url")
        if base_url and not base_url.startswith(("https://", "http://")):
            raise InvalidOption("base_url", "must begin with https:// (or http://)")
        cls.rates(settings)
        return {name: settings.get(name) or option.default for name, option in known.items()}

    @classmethod
    def rates(cls, settings: Mapping[str, str]) -> Rates:
        """How fast an account of these settings may send. Raises ``InvalidOption``."""
        given = []
        for option, usual in zip(PACE, (cls.usual_rates.account, cls.usual_rates.recipient), strict=True):
            try:
                given.append(parse(settings[option.name]) if settings.get(option.name) else usual)
            except InvalidRate as error:
                raise InvalidOption(option.name, str(error)) from error
        return Rates(*given)

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Field -> reason for content that this vendor is known to refuse (too long, empty), checked at the door."""
        said = outbound.text or outbound.html or outbound.attachments
        refused = {} if said else {"text": "must not be empty"}
        if outbound.attachments and (fault := cls.attachments_fault(outbound.attachments)):
            refused["attachments"] = fault
        if outbound.options and (unknown := sorted(set(outbound.options) - set(cls.message_options))):
            known = ", ".join(cls.message_options) or "none"
            refused["options"] = f"{cls.name} has no option {', '.join(unknown)}; it knows {known}"
        return refused

    @classmethod
    def attachments_fault(cls, attachments: Sequence[Attachment]) -> str:
        """Why these files cannot go with one message; empty where they can."""
        if cls.takes is None:
            return f"cannot go with it: {cls.name} takes no files; leave them out, or put a link into the text"
        return cls.takes.fault(attachments)


def _insist_on_text(name: str, value: object) -> None:
    """A row may hold anything that JSON can say, and a command line bytes that are no characters."""
    if not isinstance(value, str):
        raise InvalidOption(name, "must be text, a number too; set it again")
    try:
        value.encode()
    except UnicodeEncodeError:
        # Not from the error, which holds the value.
        raise InvalidOption(name, "holds a character that is not UTF-8; give it again in UTF-8") from None
