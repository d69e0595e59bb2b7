"""The balance and all checks over one snapshot. Called by `manage.py ledger`, through this package's front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction

from channels.registry import providers
from chaski.vocabulary import FINAL, Status
from deliveries.conf import limits, timings
from deliveries.ledger import conservation, life, outside, sending, telling
from deliveries.ledger.checks import Check
from deliveries.lifecycle import ASIDE, MOVES
from deliveries.sql import Cursor

SHOWN = 20
CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (*conservation.CHECKS, *life.CHECKS, *sending.CHECKS, *telling.CHECKS, *outside.CHECKS),
        key=lambda check: (check.invariant, check.needs),
    )
)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks an invariant. ``message_id`` is another row's id where the row is no message."""

    invariant: int
    message_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The balance: ``accepted`` on one side, everything else but ``redelivered`` on the other.

    ``redelivered`` counts how often messages were put back by an operator or a service: no message more by that.
    """

    accepted: int
    final: int
    handed_over: int
    waiting: int
    in_flight: int
    in_doubt: int
    redelivered: int = 0
    violations: list[Violation] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing invented, nothing contradictory."""
        other_side = self.final + self.handed_over + self.waiting + self.in_flight + self.in_doubt
        return self.accepted == other_side and not self.violations

    def as_dict(self) -> dict[str, Any]:
        """The shape of `manage.py ledger --json`."""
        return {"balanced": self.balanced, **asdict(self)}


COUNTS = """
SELECT (SELECT count(*) FROM acceptance WHERE message_id >= %(floor)s),
    count(*) FILTER (WHERE m.status = ANY(%(final)s)),
    count(*) FILTER (WHERE m.status IN ('sent', 'delivered')),
    count(*) FILTER (WHERE m.status = 'queued' AND p.message_id IS NOT NULL AND p.lease_until IS NULL),
    count(*) FILTER (WHERE m.status = 'queued' AND p.lease_until IS NOT NULL),
    count(*) FILTER (WHERE m.status = 'in_doubt'),
    coalesce(sum(m.redelivery_count), 0)::bigint
FROM message m LEFT JOIN pending p ON p.message_id = m.id WHERE m.id >= %(floor)s
"""


def check(since: datetime | None = None, files: outside.Files | None = None) -> Ledger:
    """Balance and check every message minted since ``since`` (aware UTC), or all of them.

    ``files`` are compared too. Raises ``outside.UnusableFile``.
    """
    with outside.laid_open(files or outside.Files()) as kinds, _snapshot() as cursor:
        return examine(cursor, since, kinds)


def examine(cursor: Cursor, since: datetime | None = None, kinds: frozenset[str] = frozenset()) -> Ledger:
    """The same in the caller's transaction, whose snapshot must be one for all statements if others write meanwhile.

    ``kinds`` are those of the outside evidence that ``outside.laid_open`` gave.
    """
    parameters = bounds(cursor, since)
    cursor.execute(COUNTS, parameters)
    accepted, final, handed_over, waiting, in_flight, in_doubt, redelivered = cursor.fetchone()
    violations = list(_violations(cursor, parameters, kinds))
    return Ledger(accepted, final, handed_over, waiting, in_flight, in_doubt, redelivered, violations)


def bounds(cursor: Cursor, since: datetime | None) -> dict[str, Any]:
    """Everything that the statements of the checks are given."""
    cursor.execute("SELECT coalesce(uuid7_floor(%s::timestamptz), '00000000-0000-0000-0000-000000000000')", [since])
    pairs = [("nothing", str(Status.QUEUED)), *((str(a), str(b)) for a, after in MOVES.items() for b in after)]
    idempotent = [key for key, cls in providers().items() if cls.idempotent]
    return {
        "floor": cursor.fetchone()[0],
        "since": since or _EVER,
        "final": [str(status) for status in FINAL],
        "froms": [before for before, _ in pairs],
        "tos": [after for _, after in pairs],
        "aside": ASIDE,
        "crashes": limits().crashes,
        "channels": [channel for channel, _ in idempotent],
        "idempotent": [provider for _, provider in idempotent],
        "leases": 2 * max(timings().lease(cls) for cls in providers().values()),
        "swept": _swept(cursor),
    }


def _swept(cursor: Cursor) -> datetime:
    """The sweeps and the relay have done what was due until then: nothing yet in a database that was restored and is held."""
    cursor.execute("SELECT chaski_now(), EXISTS (SELECT 1 FROM lineage WHERE held_at IS NOT NULL)")
    now, held = cursor.fetchone()
    return _EVER if held else now - timedelta(seconds=2 * timings().sweep_seconds + 5)


def _violations(cursor: Cursor, parameters: dict[str, Any], kinds: frozenset[str]) -> Iterator[Violation]:
    for each in CHECKS:
        if each.needs and each.needs not in kinds:
            continue
        cursor.execute(f"SELECT * FROM ({each.sql}) AS broken LIMIT {SHOWN}", parameters)
        for row_id, detail in cursor.fetchall():
            yield Violation(each.invariant, str(row_id), f"{each.wrong}: {detail}")


@contextmanager
def _snapshot() -> Iterator[Cursor]:
    with transaction.atomic(), connection.cursor() as cursor, connection.connection.within(None):
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SET LOCAL statement_timeout = 0")
        yield cursor
