"""After a run every row is looked at: all sent, one attempt each, each once at the sink, the ledger balanced.

A run that fails this is no result, however fast it was.
"""

from __future__ import annotations

from benchmarks.servers import Servers
from benchmarks.sink_process import Sink
from benchmarks.subject import Service, Subject

STATUSES = "SELECT status, count(*) FROM message WHERE service_id = %s GROUP BY status ORDER BY status"
#: Messages with another number of attempts than one, or with one that was not accepted.
ODD_ATTEMPTS = """
SELECT count(*) FROM (
    SELECT m.id FROM message m LEFT JOIN attempt a ON a.message_id = m.id WHERE m.service_id = %s
    GROUP BY m.id HAVING count(a.number) <> 1 OR min(a.outcome) <> 'accepted' OR min(m.attempt_count) <> 1) odd
"""
WAITING = "SELECT count(*) FROM pending WHERE service_id = %s"
IDS = "SELECT id::text FROM message WHERE service_id = %s"


class Unsound(AssertionError):
    """A run lost, doubled or left something; the message says what was found."""


def chaski_sent_each_once(subject: Subject, service: Service, sink: Sink | None, count: int) -> None:
    """Raises ``Unsound`` unless each of the ``count`` messages of ``service`` was sent in one attempt and arrived once."""
    wrong = [
        *_differs("statuses", subject.servers.query(STATUSES, service.id), [("sent", count)]),
        *_differs("messages without exactly one good attempt", subject.servers.query(ODD_ATTEMPTS, service.id), [(0,)]),
        *_differs("waiting", subject.servers.query(WAITING, service.id), [(0,)]),
    ]
    if sink is not None:
        ids = {row[0] for row in subject.servers.query(IDS, service.id)}
        wrong += sink_saw_each_once(sink, ids)
    ledger = subject.manage.run("ledger", "--json", codes=(0, 1))
    if ledger.code:
        wrong.append(f"the ledger does not balance: {ledger.text[:2000]}")
    if wrong:
        raise Unsound("; ".join(wrong))


def sink_saw_each_once(sink: Sink, ids: set[str]) -> list[str]:
    """What is wrong with the sink's calls, when they should be one for each of ``ids``."""
    seen, found = sink.seen(), sink.ids()
    wrong = _differs("calls without an identity", seen.nameless, 0) + _differs("doubled calls", seen.duplicates, 0)
    return wrong + _differs("never called", len(ids - found), 0) + _differs("called unasked", len(found - ids), 0)


def yardstick_sent_each_once(servers: Servers, database: str, table: str, sink: Sink) -> None:
    """The same for a yardstick that keeps rows: all sent, each once. Raises ``Unsound``."""
    rows = servers.query(f"SELECT id::text, status FROM {table}", database=database)
    wrong = _differs("not sent", sum(status != "sent" for _, status in rows), 0)
    wrong += sink_saw_each_once(sink, {row[0] for row in rows})
    if wrong:
        raise Unsound("; ".join(wrong))


def _differs(what: str, found: object, expected: object) -> list[str]:
    return [] if found == expected else [f"{what}: {found} instead of {expected}"]
