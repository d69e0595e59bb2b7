"""Who verifies what comes in for an account: its provider, kept for two seconds, as a vendor may call a thousand times in one.

Asked by the receipts endpoint only. What is kept gets no way out: it can verify and parse, not send.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

import structlog

from channels.base import Forged, InboundRequest, InvalidOption, Provider, Receipt
from channels.inbound import Reply
from channels.registry import UnknownProvider, provider_class
from deliveries.conf import timings
from deliveries.delivery.accounts import owner, unusable
from deliveries.models import Account
from deliveries.secrets import Unsealable, unseal

log = structlog.get_logger(__name__)
KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Verifier:
    """An account with its provider, or why there is none."""

    account_id: int
    read_at: float
    provider: Provider | None
    problem: str = ""

    def greet(self, request: InboundRequest) -> bytes | None:
        """What the vendor wants to hear back, where it only asks whether the address is ours. Raises ``Forged``."""
        return self.provider.greet(request) if self.provider is not None else None

    def read(self, request: InboundRequest) -> Sequence[Receipt | Reply]:
        """What the vendor tells. Raises ``Forged`` for what it did not sign, ``Unreadable``."""
        if self.provider is None:
            raise Forged(f"the account cannot verify anything: {self.problem}")
        self.provider.verify(request)
        return self.provider.parse(request)


class Verifiers:
    """The verifiers of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[UUID, Verifier] = {}

    def find(self, public_id: UUID) -> Verifier | None:
        """The account's, as it was at most two seconds ago; None where there is no account."""
        known = self._known.get(public_id)
        if known is not None and time.monotonic() - known.read_at < timings().account_cache_seconds:
            return known
        return self.find_anew(public_id)

    def find_anew(self, public_id: UUID) -> Verifier | None:
        """As it is now: for what the one that is kept calls forged, as its secret may be a new one."""
        account = Account.objects.filter(public_id=public_id).first()
        if account is None:
            return None
        found = verifier(account)
        with self._lock:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[public_id] = found
        return found


def verifier(account: Account) -> Verifier:
    """For ``account`` as it is in the database."""
    now = time.monotonic()
    try:
        cls = provider_class(account.channel, account.provider)
        configured = cls.check({**account.options, **unseal(owner(account.public_id), bytes(account.secrets))})
    except (UnknownProvider, InvalidOption, Unsealable) as error:
        return Verifier(account.pk, now, None, str(error))
    try:
        return Verifier(account.pk, now, cls(configured, None))  # type: ignore[arg-type]
    except Exception as error:  # one account's set-up is no 500 for its vendor
        log.exception("account_unusable", account=account.pk)
        return Verifier(account.pk, now, None, unusable(error))


verifiers = Verifiers()
