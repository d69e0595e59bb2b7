"""What may become of a request to a vendor besides acceptance. Raised by providers, classed by the delivery engine.

The error tree, with the word it has on the wire:

    SendError
    +-- NotSent           not_sent           never left us: always safe to repeat
    +-- Throttled         throttled          the vendor refused for now
    +-- Transient         transient          the vendor failed after reading us: repeated, counted as maybe delivered
    +-- NotAllowedNow     not_allowed_now    window closed or template needed: waits or fails by policy
    +-- RecipientRefused  recipient_refused  may suppress the recipient
    +-- ContentRefused    content_refused    this content will never pass
    +-- Misconfigured     misconfigured      credentials or account: stop the account, burn no message
    +-- InDoubt           in_doubt           the answer never came
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

DETAIL_LIMIT = 500


class SendError(Exception):
    """An attempt that the vendor did not accept. ``code`` is the vendor's or ours; ``detail`` is shown to staff.

    ``detail`` must hold neither secrets nor the body; it is cut to 500 characters.
    """

    error_class: ClassVar[str] = ""
    #: The vendor gave a code that the provider's table does not have; it was classed by the HTTP status.
    unmapped: bool = False

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code[:64]
        self.detail = detail[:DETAIL_LIMIT]


class NotSent(SendError):
    """The request never left us: DNS, refused connection, TLS, connect timeout. Always safe to repeat."""

    error_class = "not_sent"


class Scope(StrEnum):
    """What a throttle concerns: everything sent through the account, or one recipient."""

    ACCOUNT = "account"
    RECIPIENT = "recipient"


class Throttled(SendError):
    """The vendor refused for now and processed nothing. ``retry_after`` in seconds, None where the vendor does not say."""

    error_class = "throttled"

    def __init__(
        self, code: str, detail: str = "", *, retry_after: float | None = None, scope: Scope = Scope.ACCOUNT
    ) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
        self.scope = scope


class Transient(SendError):
    """The vendor failed after reading us (5xx). Repeated, and counted as maybe delivered."""

    error_class = "transient"

    def __init__(self, code: str, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after


class NotAllowedNow(SendError):
    """The vendor's own rules forbid it for the moment; ``until`` is an aware UTC time where it is known."""

    error_class = "not_allowed_now"

    def __init__(self, code: str, detail: str = "", *, until: datetime | None = None) -> None:
        super().__init__(code, detail)
        self.until = until


class RecipientRefused(SendError):
    """Permanent for this recipient. ``suppress`` asks that nothing more be sent to it on this channel."""

    error_class = "recipient_refused"

    def __init__(self, code: str, detail: str = "", *, suppress: bool = False) -> None:
        super().__init__(code, detail)
        self.suppress = suppress


class ContentRefused(SendError):
    """Permanent for this message."""

    error_class = "content_refused"


class Misconfigured(SendError):
    """Credentials, sender or account: nothing sent through this account can pass until somebody mends it."""

    error_class = "misconfigured"


class InDoubt(SendError):
    """The request was written and the answer never came, or cannot be read: it may have been delivered."""

    error_class = "in_doubt"
