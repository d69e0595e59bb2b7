"""Which account carries a message: by order and weight, one that is up. Called by intake; the choice is written on the row.

What waits for an account that goes down later is moved by ``deliveries.delivery.reroute``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, TypeVar

from django.db import connection

from deliveries.conf import timings
from deliveries.models import Account, Pause, Route, Service

#: Between two new messages of one process that see whether an account is up again.
_TRY_SECONDS = 5.0
OPEN = "SELECT account_id, extract(epoch FROM probe_at - chaski_now())::float8 FROM breaker"


class NoAccount(LookupError):
    """No account can carry it; ``field`` is the field of the message that is to blame."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AccountRef:
    """What intake needs to know of an account."""

    id: int
    service_id: int | None
    channel: str
    provider: str
    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class RouteRef:
    """One configured route."""

    service_id: int
    channel: str
    account_id: int
    weight: int
    position: int


class RoutingTable:
    """The accounts and routes of the database, read again after two seconds or when something is missing. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read_at = float("-inf")
        self._accounts: tuple[AccountRef, ...] = ()
        self._routes: tuple[RouteRef, ...] = ()
        #: Accounts that are down, each with the moment from which it may be tried.
        self._down: dict[int, float] = {}
        self._paused: frozenset[int] = frozenset()

    def forget(self) -> None:
        """Read again at the next question."""
        self._read_at = float("-inf")

    def choose(self, service: Service, channel: str, wanted: str = "") -> AccountRef:
        """The account for one message of ``service``. ``wanted`` is the name that the message asks for.

        A test service always gets the sandbox. Raises ``NoAccount``.
        """
        if service.test:
            return sandbox(channel)
        try:
            return self._choose(service.pk, channel, wanted)
        except NoAccount:
            self.forget()
            return self._choose(service.pk, channel, wanted)

    def get(self, account_id: int) -> AccountRef:
        """The account ``account_id``, whoever owns it. Raises ``Account.DoesNotExist``."""
        account = Account.objects.get(pk=account_id)
        return AccountRef(
            account.pk, account.service_id, account.channel, account.provider, account.name, account.priority
        )

    def _choose(self, service_id: int, channel: str, wanted: str) -> AccountRef:
        self._refresh()
        mine = [a for a in self._accounts if a.channel == channel and a.service_id in (service_id, None)]
        if wanted:
            named = [account for account in mine if account.name == wanted]
            if not named:
                raise NoAccount("account", f"this service has no account {wanted!r} on channel {channel!r}")
            return named[0]
        return self._by_route(service_id, channel, mine) or self._by_priority(channel, mine)

    def _by_route(self, service_id: int, channel: str, mine: list[AccountRef]) -> AccountRef | None:
        usable = {account.id: account for account in mine}
        own = (r for r in self._routes if r.service_id == service_id and r.channel == channel)
        routes = [route for route in own if route.account_id in usable]
        if not routes:
            return None
        first = min(route.position for route in routes)
        for position in sorted({route.position for route in routes}):
            equals = [route for route in routes if route.position == position]
            up = [route for route in equals if self._may_be_tried(route.account_id)]
            if position > first or len(up) < len(equals):  # somebody stands in, and whoever is paused does not
                up = [route for route in up if route.account_id not in self._paused]
            if up:
                return usable[by_weight(up).account_id]
        return usable[by_weight([route for route in routes if route.position == first]).account_id]

    def _may_be_tried(self, account_id: int) -> bool:
        """Is the account up, or is it time to see with one message whether it is again?"""
        tried_at = self._down.get(account_id)
        if tried_at is None:
            return True
        with self._lock:
            if time.monotonic() < tried_at:
                return False
            self._down[account_id] = time.monotonic() + _TRY_SECONDS * timings().scale
            return True

    @staticmethod
    def _by_priority(channel: str, mine: list[AccountRef]) -> AccountRef:
        if not mine:
            raise NoAccount(
                "channel",
                f"no account is set up for channel {channel!r}; an operator creates one with"
                f" `manage.py account create {channel} PROVIDER NAME`",
            )
        # A service's own account comes before a shared one of the same priority.
        return min(mine, key=lambda account: (account.priority, account.service_id is None, account.id))

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at < timings().account_cache_seconds:
                return
            columns = ("id", "service_id", "channel", "provider", "name", "priority")
            # The sandboxes of test services must never catch a real message for want of an account.
            real = Account.objects.exclude(service=None, provider="sandbox", name__startswith="sandbox-")
            self._accounts = tuple(AccountRef(*row) for row in real.values_list(*columns))
            self._routes = tuple(
                RouteRef(*row)
                for row in Route.objects.values_list("service_id", "channel", "account_id", "weight", "position")
            )
            self._down = self._still_down()
            paused = Pause.objects.filter(scope="account").values_list("value", flat=True)
            self._paused = frozenset(int(value) for value in paused if value.isdecimal())
            self._read_at = time.monotonic()

    def _still_down(self) -> dict[int, float]:
        """One that was stopped waits for an operator; one whose breaker is open for its time to be probed."""
        now = time.monotonic()
        stopped = Account.objects.filter(stopped_at__isnull=False).values_list("pk", flat=True)
        with connection.cursor() as cursor:
            cursor.execute(OPEN)
            probed = {account_id: now + seconds for account_id, seconds in cursor.fetchall()}
        probed = {each: max(at, self._down.get(each, at)) for each, at in probed.items()}
        return {**probed, **dict.fromkeys(stopped, float("inf"))}


class Weighted(Protocol):
    """What has a share of a service's messages; one of nothing (0) only where it stands in."""

    @property
    def weight(self) -> int: ...


W = TypeVar("W", bound=Weighted)


def by_weight(equals: Sequence[W]) -> W:
    """One of ``equals``, more often the more it weighs."""
    return random.choices(equals, [max(each.weight, 1) for each in equals])[0]  # noqa: S311 - sharing load


table = RoutingTable()


def sandbox(channel: str) -> AccountRef:
    """The shared sandbox account of ``channel``, made when it is first needed."""
    account, _ = Account.objects.get_or_create(
        service=None, name=f"sandbox-{channel}", defaults={"channel": channel, "provider": "sandbox", "priority": 1000}
    )
    return AccountRef(account.pk, None, channel, "sandbox", account.name, account.priority)
