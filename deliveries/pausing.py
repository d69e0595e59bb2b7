"""What must not be claimed now: the kill switch, and open breakers.

Set by `manage.py pause`, the admin and the engine; asked by the claim and by `trace`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from deliveries.sql import Cursor

#: The account's own stop (wrong credentials) counts like a pause of the account, a database that was restored like one of
#: everything, which no ``resume`` ends.
READ = """
SELECT scope, value FROM pause
UNION ALL
SELECT 'account', id::text FROM account WHERE stopped_at IS NOT NULL
UNION ALL
SELECT 'all', '' FROM lineage WHERE held_at IS NOT NULL
UNION ALL
SELECT 'breaker', account_id || ' ' || extract(epoch FROM probe_at - chaski_now()) FROM breaker
"""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Everything that is held at one moment. ``breakers``: open ones by account, with the seconds until the next probe."""

    everything: bool
    channels: frozenset[str]
    accounts: frozenset[int]
    services: frozenset[int]
    batches: frozenset[UUID]
    breakers: Mapping[int, float] = field(default_factory=dict)

    def hold(self, channel: str) -> bool:
        """Is nothing at all to be claimed on ``channel``?"""
        return self.everything or channel in self.channels


def read(cursor: Cursor) -> Pauses:
    """What is held now."""
    cursor.execute(READ)
    rows = cursor.fetchall()

    def values(scope: str) -> list[str]:
        return [value for found, value in rows if found == scope]

    return Pauses(
        everything=any(scope == "all" for scope, _ in rows),
        channels=frozenset(values("channel")),
        accounts=frozenset(int(value) for value in values("account")),
        services=frozenset(int(value) for value in values("service")),
        batches=frozenset(UUID(value) for value in values("batch")),
        breakers={int(account): float(seconds) for account, seconds in map(str.split, values("breaker"))},
    )


class Recent:
    """What is held, at most half a second old: for answers that are given thousands of times a second. Thread-safe."""

    SECONDS = 0.5

    def __init__(self) -> None:
        self._known: tuple[float, Pauses] | None = None

    def get(self, read: Callable[[], Pauses]) -> Pauses:
        """What is known, or what ``read`` says."""
        known = self._known
        if known is None or time.monotonic() - known[0] > self.SECONDS:
            known = self._known = (time.monotonic(), read())
        return known[1]

    def forget(self) -> None:
        """This process has changed it."""
        self._known = None


recent = Recent()
