"""The ledger: does every accepted message still exist, and do the rows agree with each other?

Called by `manage.py ledger` and after every fault test. It reads one snapshot and changes nothing; each check is one
statement that returns what breaks it, so an empty answer is the proof. docs/reference/invariants.md lists them in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from chaski.vocabulary import FINAL
from deliveries.conf import limits, timings
from deliveries.lifecycle import MOVES
from deliveries.sql import Cursor

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks an invariant."""

    invariant: int
    message_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The balance: ``accepted`` on one side, everything else on the other."""

    accepted: int
    final: int
    handed_over: int
    waiting: int
    in_flight: int
    in_doubt: int
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
    count(*) FILTER (WHERE m.status = 'in_doubt')
FROM message m LEFT JOIN pending p ON p.message_id = m.id WHERE m.id >= %(floor)s
"""

#: (number of the invariant, what is wrong, the statement that finds it: message id and detail).
CHECKS: tuple[tuple[int, str, str], ...] = (
    (
        1,
        "accepted, and no message",
        "SELECT a.message_id, a.origin FROM acceptance a LEFT JOIN message m ON m.id = a.message_id"
        " WHERE a.message_id >= %(floor)s AND m.id IS NULL",
    ),
    (
        1,
        "its counts by service, origin and hour differ",
        "SELECT a.service_id, a.origin || ' ' || a.hour || ': ' || a.n || ' accepted, ' || coalesce(m.n, 0) || ' there' FROM"
        " (SELECT service_id, origin, date_trunc('hour', accepted_at) AS hour, count(*) AS n FROM acceptance"
        "  WHERE message_id >= %(floor)s GROUP BY 1, 2, 3) a FULL JOIN"
        " (SELECT service_id, origin, date_trunc('hour', created_at) AS hour, count(*) AS n FROM message"
        "  WHERE id >= %(floor)s GROUP BY 1, 2, 3) m USING (service_id, origin, hour) WHERE a.n IS DISTINCT FROM m.n",
    ),
    (
        1,
        "waits, and is in no queue",
        "SELECT m.id, m.status FROM message m LEFT JOIN pending p ON p.message_id = m.id"
        " WHERE m.id >= %(floor)s AND m.status IN ('queued', 'in_doubt') AND p.message_id IS NULL",
    ),
    (
        1,
        "is in the queue, and done",
        "SELECT p.message_id, coalesce(m.status, 'no message') FROM pending p LEFT JOIN message m ON m.id = p.message_id"
        " WHERE p.message_id >= %(floor)s AND (m.id IS NULL OR m.status NOT IN ('queued', 'in_doubt'))"
        # a receipt that is quicker than its send leaves the queue row to the worker that holds it
        " AND p.lease_until IS NULL",
    ),
    (
        2,
        "never accepted",
        "SELECT m.id, m.origin FROM message m LEFT JOIN acceptance a ON a.message_id = m.id"
        " WHERE m.id >= %(floor)s AND a.message_id IS NULL",
    ),
    (
        2,
        "told to a client by its key, and no message",
        "SELECT i.message_id, i.key FROM idempotency i LEFT JOIN message m ON m.id = i.message_id"
        " WHERE i.message_id >= %(floor)s AND m.id IS NULL",
    ),
    (
        3,
        "its events have a gap, or do not end where it is",
        "SELECT m.id, m.status || ', ' || m.event_sequence || ' events told, ' || e.n || ' kept, the last ' || e.last"
        " FROM message m CROSS JOIN LATERAL (SELECT count(*) AS n, max(sequence) AS top, coalesce((SELECT status FROM event"
        "  WHERE message_id = m.id ORDER BY sequence DESC LIMIT 1), 'none') AS last FROM event WHERE message_id = m.id) e"
        " WHERE m.id >= %(floor)s AND (e.n <> m.event_sequence OR e.top <> m.event_sequence OR e.last <> m.status)",
    ),
    (
        3,
        "made a move that is not allowed",
        "SELECT e.message_id, e.before || ' -> ' || e.status FROM (SELECT message_id, status, lag(status) OVER"
        "  (PARTITION BY message_id ORDER BY sequence) AS before FROM event WHERE message_id >= %(floor)s) e"
        " WHERE e.before IS NOT NULL AND NOT EXISTS (SELECT 1 FROM unnest(%(froms)s::text[], %(tos)s::text[]) AS a(b, s)"
        "  WHERE a.b = e.before AND a.s = e.status)",
    ),
    (
        4,
        "is under a lease without an open attempt of its token",
        "SELECT p.message_id, 'token ' || p.lease_token FROM pending p WHERE p.message_id >= %(floor)s"
        " AND p.lease_until IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message_id = p.message_id"
        "  AND a.token = p.lease_token AND a.finished_at IS NULL)",
    ),
    (
        4,
        "has a lease that ends too late, or ended long ago",
        "SELECT message_id, 'until ' || lease_until FROM pending WHERE message_id >= %(floor)s AND lease_until NOT BETWEEN"
        " chaski_now() - make_interval(secs => %(patience)s) AND chaski_now() + make_interval(secs => %(leases)s)",
    ),
    (
        4,
        "has an open attempt that no lease holds",
        "SELECT a.message_id, 'attempt ' || a.number FROM attempt a WHERE a.message_id >= %(floor)s"
        " AND a.finished_at IS NULL AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.message_id = a.message_id"
        "  AND p.lease_token = a.token)",
    ),
    (
        4,
        "has two attempts at once",
        "SELECT b.message_id, 'attempts ' || a.number || ' and ' || b.number FROM attempt a JOIN attempt b"
        " ON b.message_id = a.message_id AND b.number = a.number + 1"
        " WHERE a.message_id >= %(floor)s AND (a.finished_at IS NULL OR b.opened_at < a.finished_at)",
    ),
    (
        5,
        "says sent, and no attempt, receipt or operator does",
        "SELECT m.id, m.status FROM message m WHERE m.id >= %(floor)s AND m.status IN ('sent', 'delivered', 'read')"
        " AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message_id = m.id"
        "  AND (a.outcome = 'accepted' OR a.late ->> 'outcome' = 'accepted'))"
        " AND NOT EXISTS (SELECT 1 FROM receipt r WHERE r.message_id = m.id)"
        " AND NOT EXISTS (SELECT 1 FROM audit u WHERE u.target = m.id::text AND u.action = 'resolve')",
    ),
    (
        6,
        "was accepted by providers more often than its doubts explain",
        "SELECT m.id, a.n || ' accepts, ' || m.in_doubt_count || ' doubts' FROM message m JOIN (SELECT message_id, count(*) AS n"
        "  FROM attempt WHERE message_id >= %(floor)s AND (outcome = 'accepted' OR late ->> 'outcome' = 'accepted')"
        "  GROUP BY message_id) a ON a.message_id = m.id WHERE a.n > 1 + m.in_doubt_count + m.redelivery_count",
    ),
    (
        7,
        "counts its attempts wrongly",
        "SELECT m.id, m.attempt_count || ' counted, ' || a.top || ' made' FROM message m JOIN (SELECT message_id,"
        "  max(number) AS top FROM attempt WHERE message_id >= %(floor)s AND finished_at IS NOT NULL GROUP BY message_id) a"
        " ON a.message_id = m.id WHERE m.attempt_count < a.top",
    ),
    (
        7,
        "crashed more workers than it may",
        "SELECT message_id, crash_count || ' crashes' FROM pending"
        " WHERE message_id >= %(floor)s AND crash_count >= %(crashes)s",
    ),
    (
        7,
        "waits beyond its deadline",
        "SELECT message_id, 'since ' || expires_at FROM pending WHERE message_id >= %(floor)s AND lease_until IS NULL"
        " AND NOT (blocked AND waiting_for = 'operator')"
        " AND expires_at < chaski_now() - make_interval(secs => %(patience)s)",
    ),
    (
        9,
        "has children of another service",
        "SELECT m.id, 'event of service ' || e.service_id FROM message m JOIN event e ON e.message_id = m.id"
        " WHERE m.id >= %(floor)s AND e.service_id <> m.service_id UNION ALL"
        " SELECT m.id, 'queue row of service ' || p.service_id FROM message m JOIN pending p ON p.message_id = m.id"
        " WHERE m.id >= %(floor)s AND p.service_id <> m.service_id",
    ),
    (
        10,
        "has an event that its service was not told",
        "SELECT u.message_id, 'event ' || u.sequence FROM untold u JOIN endpoint n ON n.service_id = u.service_id AND n.active"
        " JOIN event e ON e.message_id = u.message_id AND e.sequence = u.sequence"
        " WHERE u.message_id >= %(floor)s AND e.at < chaski_now() - interval '10 minutes'",
    ),
)


def check(since: datetime | None = None) -> Ledger:
    """Balance and check every message minted since ``since`` (aware UTC), or all of them."""
    with _snapshot() as cursor:
        return examine(cursor, since)


def examine(cursor: Cursor, since: datetime | None = None) -> Ledger:
    """The same in the caller's transaction, whose snapshot must be one for all statements if others write meanwhile."""
    cursor.execute("SELECT coalesce(uuid7_floor(%s::timestamptz), '00000000-0000-0000-0000-000000000000')", [since])
    parameters = _parameters(cursor.fetchone()[0])
    cursor.execute(COUNTS, parameters)
    accepted, final, handed_over, waiting, in_flight, in_doubt = cursor.fetchone()
    violations = list(_violations(cursor, parameters))
    return Ledger(accepted, final, handed_over, waiting, in_flight, in_doubt, violations)


def _parameters(floor: Any) -> dict[str, Any]:
    pairs = [(str(before), str(after)) for before, afters in MOVES.items() for after in afters]
    lease = 180.0 * timings().scale
    return {
        "floor": floor,
        "final": [str(status) for status in FINAL],
        "froms": [before for before, _ in pairs],
        "tos": [after for _, after in pairs],
        "crashes": limits().crashes,
        "leases": 2 * lease,
        "patience": 2 * timings().sweep_seconds + 5,
    }


def _violations(cursor: Cursor, parameters: dict[str, Any]) -> Iterator[Violation]:
    for invariant, wrong, sql in CHECKS:
        cursor.execute(f"SELECT * FROM ({sql}) AS broken LIMIT {SHOWN}", parameters)
        for message_id, detail in cursor.fetchall():
            yield Violation(invariant, str(message_id), f"{wrong}: {detail}")


@contextmanager
def _snapshot() -> Iterator[Cursor]:
    with transaction.atomic(), connection.cursor() as cursor, connection.connection.within(None):
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SET LOCAL statement_timeout = 0")
        yield cursor
