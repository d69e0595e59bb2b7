"""The lineage: which database this is and how far it has come, so that one restored from a backup starts held.

A restored database believes in the past: what was sent after the backup is still due in it. The row counts up every few
seconds; witnesses outside of the database (Valkey, a file beside the process, the memory of each process) keep the highest
count that they saw. A database behind its witnesses was restored. So was one that came from another cluster and that no
witness here knows: a dump.
Asked by the engine before it claims and by the relay before each job; docs/adr/0012-restored-starts-held.md has the reasons.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

import structlog

from deliveries import pausing
from deliveries.pausing import Pauses
from deliveries.sql import Cursor
from deliveries.witnesses import AWAY, Witness, of_this_process

log = structlog.get_logger(__name__)

READ = """
SELECT id, counter, advanced_at, held_at, held_reason, begun_late, identity, chaski_identity() FROM lineage
"""
BEGIN = """
INSERT INTO lineage (one, id, identity, counter, advanced_at, held_reason, begun_late)
SELECT true, %(id)s, chaski_identity(), 0, chaski_now(), '', EXISTS (SELECT 1 FROM message) ON CONFLICT DO NOTHING
"""
HOLD = """
WITH held AS (
    UPDATE lineage SET held_at = chaski_now(), held_reason = %(reason)s WHERE held_at IS NULL AND id = %(id)s RETURNING id
)
INSERT INTO audit (at, actor, action, target, reason, detail)
SELECT now(), 'chaski', 'hold', 'lineage:' || id, %(reason)s, '{}' FROM held
"""
ADOPT = "UPDATE lineage SET identity = chaski_identity() WHERE held_at IS NULL"
ADVANCE = """
UPDATE lineage SET counter = counter + 1, advanced_at = chaski_now() WHERE held_at IS NULL RETURNING id, counter
"""
VOUCH = "UPDATE lineage SET begun_late = false WHERE id = %(id)s"
HELD = "SELECT 1 FROM lineage WHERE held_at IS NOT NULL AND id = %(id)s FOR SHARE"
#: A new id: what the witnesses know of the old one is over, and the same backup restored again is held again.
ARM = """
UPDATE lineage SET id = %(new)s, identity = chaski_identity(), counter = 0, advanced_at = chaski_now(), held_at = NULL,
    held_reason = '', begun_late = false WHERE held_at IS NOT NULL AND id = %(id)s RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The row: ``advanced_at`` is, in a restored database, about the time of its backup. Times are aware UTC."""

    id: UUID
    counter: int
    advanced_at: datetime
    held_at: datetime | None
    reason: str
    #: Messages were there when it was made, and not all witnesses have been heard since: by an upgrade to the first release
    #: that counts, or because it was restored from a backup of one that did not.
    begun_late: bool
    identity: str
    here: str

    @property
    def held(self) -> bool:
        """Must nothing be sent?"""
        return self.held_at is not None

    @property
    def moved(self) -> bool:
        """Was it made by another cluster, or as another database, than the one it is in?"""
        return self.identity != self.here


@dataclass(slots=True)
class Guard:
    """Looks at the lineage for one process, and is its third witness. Thread-safe.

    A look touches memory and the database alone. Who makes a guard calls ``ask`` before the first look, outside of any
    transaction; each ``advance`` asks anew, so that a witness that was away is heard within five seconds of its return.
    """

    witnesses: tuple[Witness, ...]
    #: Replaced and never changed: who has taken it may read it without the lock.
    _known: Mapping[UUID, int] = field(default_factory=dict)
    _heard: frozenset[str] = frozenset()
    _silent: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, cursor: Cursor) -> Standing:
        """Where the database stands now, held if it was restored. One small statement, in the caller's transaction."""
        # Before the row: whatever was counted by now was committed by now, and a row that is read later has it.
        with self._lock:
            known, heard = self._known, self._heard
        standing = read(cursor)
        if standing.held:
            return standing
        reason = doubt(standing, known)
        if reason:
            log.error("database_held", reason=reason)
            cursor.execute(HOLD, {"reason": reason, "id": standing.id})
            return read(cursor)
        if standing.moved:
            cursor.execute(ADOPT)
        if standing.begun_late and len(heard) == len(self.witnesses):
            cursor.execute(VOUCH, {"id": standing.id})
        self._remember({standing.id: standing.counter})
        return standing

    def ask(self) -> None:
        """Hear what the witnesses know; each that is away costs a second or less. Never in a transaction."""
        for witness in self.witnesses:
            self._talk(witness)

    def advance(self, cursor: Cursor) -> Callable[[], None]:
        """Count one up unless it is held; the caller calls the result after its commit: it tells the witnesses and asks them."""
        self.look(cursor)
        cursor.execute(ADVANCE)
        row = cursor.fetchone()
        return partial(self._tell, *row) if row else self.ask

    def _tell(self, lineage: UUID, counter: int) -> None:
        self._remember({lineage: counter})
        for witness in self.witnesses:
            self._talk(witness, (lineage, counter))

    def _talk(self, witness: Witness, news: tuple[UUID, int] | None = None) -> None:
        try:
            if news:
                witness.saw(*news)
            known = witness.known()
        except AWAY as error:
            self._complain(witness, error)
            return
        self._remember(known)
        with self._lock:
            self._heard |= {witness.name}
            self._silent.discard(witness.name)

    def _remember(self, counts: Mapping[UUID, int]) -> None:
        """A lineage that has not counted yet is left out: its row may be rolled back."""
        with self._lock:
            higher = {key: count for key, count in counts.items() if count > self._known.get(key, 0)}
            if higher:
                self._known = {**self._known, **higher}

    def _complain(self, witness: Witness, error: Exception) -> None:
        """Once, until it answers again: a read-only disk must not fill the log."""
        with self._lock:
            if witness.name in self._silent:
                return
            self._silent.add(witness.name)
        log.warning("witness_is_away", witness=witness.name, error=type(error).__name__, reason=str(error)[:200])


def doubt(standing: Standing, known: Mapping[UUID, int]) -> str:
    """Why a database that stands so was restored, where lineages are ``known`` as far as these counts; empty: it was not."""
    highest = known.get(standing.id)
    at = f"{standing.advanced_at:%Y-%m-%d %H:%M:%S} UTC"
    if highest is not None and standing.counter < highest:
        return (
            f"the database is that of {at} (count {standing.counter:,}), and was seen further on (count {highest:,}):"
            " it was restored from a backup"
        )
    if standing.moved and highest is None:
        return (
            f"the database was made elsewhere ({standing.identity}, here it is {standing.here}) and nothing here has seen"
            f" it before: it was restored from a dump of {at}"
        )
    if standing.begun_late and known.keys() - {standing.id}:
        return (
            f"the database has messages and began to count only at {at}, though it or another one was counted here before:"
            " it was restored from a backup of a release that did not count yet"
        )
    return ""


def read(cursor: Cursor) -> Standing:
    """The row as it is; made where there is none."""
    cursor.execute(READ)
    row = cursor.fetchone()
    if row is None:
        cursor.execute(BEGIN, {"id": uuid4()})
        cursor.execute(READ)
        row = cursor.fetchone()
    return Standing(*row)


def is_held(cursor: Cursor, lineage: UUID) -> bool:
    """Is it still the hold of ``lineage``? Nobody else ends it before the caller's transaction does."""
    cursor.execute(HELD, {"id": lineage})
    return cursor.fetchone() is not None


def arm(cursor: Cursor, lineage: UUID) -> bool:
    """End the hold of ``lineage``; False when it is over. Callers decide first what becomes of the messages."""
    cursor.execute(ARM, {"id": lineage, "new": uuid4()})
    return cursor.fetchone() is not None


_guard: Guard | None = None
_guard_lock = threading.Lock()


def guard() -> Guard:
    """The guard of this process, which has asked its witnesses once. Processes call it when they start, outside of any
    transaction."""
    global _guard
    with _guard_lock:
        if _guard is None:
            made = Guard(tuple(of_this_process()))
            made.ask()
            _guard = made
        return _guard


def pauses(cursor: Cursor) -> Pauses:
    """What must not be claimed now, after a look: in this order, for the look holds a database that was restored."""
    guard().look(cursor)
    return pausing.read(cursor)


def unless_held(job: Callable[[Cursor], int]) -> Callable[[Cursor], int]:
    """``job``, which does nothing while the database is held. The look is in the job's own transaction: a database may be
    exchanged between two of them."""

    def run(cursor: Cursor) -> int:
        return 0 if guard().look(cursor).held else job(cursor)

    return run
