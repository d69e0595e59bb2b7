"""The lineage: which database this is and how far it has come, so that one restored from a backup starts held.

A restored database believes in the past: what was sent after the backup is still due in it. The row counts up every few
seconds; witnesses outside of the database (Valkey, a file beside the process, the memory of each process) keep the highest
count that they saw. A database behind its witnesses was restored. So was one that came from another cluster and that no
witness here knows: a dump.
Asked by the engine before it claims and by the relay before each job; docs/adr/0012-restored-starts-held.md has the reasons.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import redis
import structlog
from django.conf import settings

from deliveries import pausing
from deliveries.doorbell import slots
from deliveries.pausing import Pauses
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)
#: How often a witness that did not answer is asked again.
ASK_AGAIN_SECONDS = 5.0
#: Lineages that a file remembers: those of trials and tests come and go.
REMEMBERED = 20
KEY = "chaski:lineage"

READ = """
SELECT id, counter, advanced_at, held_at, held_reason, identity, chaski_identity() FROM lineage
"""
BEGIN = """
INSERT INTO lineage (one, id, identity, counter, advanced_at, held_reason)
VALUES (true, %(id)s, chaski_identity(), 0, chaski_now(), '') ON CONFLICT DO NOTHING
"""
HOLD = """
WITH held AS (
    UPDATE lineage SET held_at = chaski_now(), held_reason = %(reason)s WHERE held_at IS NULL RETURNING id
)
INSERT INTO audit (at, actor, action, target, reason, detail)
SELECT now(), 'chaski', 'hold', 'lineage:' || id, %(reason)s, '{}' FROM held
"""
ADOPT = "UPDATE lineage SET identity = chaski_identity() WHERE held_at IS NULL"
ADVANCE = """
UPDATE lineage SET counter = counter + 1, advanced_at = chaski_now() WHERE held_at IS NULL RETURNING counter
"""
#: A new id: what the witnesses know of the old one is over, and the same backup restored again is held again.
ARM = """
UPDATE lineage SET id = %(id)s, identity = chaski_identity(), counter = 0, advanced_at = chaski_now(), held_at = NULL,
    held_reason = '' WHERE held_at IS NOT NULL RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The row: ``advanced_at`` is, in a restored database, about the time of its backup. Times are aware UTC."""

    id: UUID
    counter: int
    advanced_at: datetime
    held_at: datetime | None
    reason: str
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


class Witness(Protocol):
    """What remembers a lineage outside of its database. Raises ``OSError`` or ``redis.RedisError`` while it is away."""

    name: str

    def seen(self, lineage: UUID) -> int | None:
        """The highest count that it saw; None when it does not know the lineage."""

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known."""


_AWAY = (OSError, redis.RedisError)


class ValkeyWitness:
    """One sorted set for all lineages that this Valkey ever saw."""

    name = "Valkey"

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def seen(self, lineage: UUID) -> int | None:
        """The highest count that it saw."""
        score = self._client.zscore(KEY, str(lineage))
        return None if score is None else int(float(str(score)))

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known."""
        self._client.zadd(KEY, {str(lineage): counter}, gt=True)


class FileWitness:
    """A small JSON file, replaced in one step. Of several processes that write at once the last one wins; they are close."""

    name = "the file of this machine"

    def __init__(self, path: Path) -> None:
        self._path = path

    def seen(self, lineage: UUID) -> int | None:
        """The highest count that it saw."""
        return self._read().get(str(lineage))

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known."""
        known = self._read()
        highest = max(counter, known.pop(str(lineage), 0))
        kept = {**dict(list(known.items())[1 - REMEMBERED :]), str(lineage): highest}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        new.write_text(json.dumps(kept))
        new.replace(self._path)

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(key): int(value) for key, value in found.items()} if isinstance(found, dict) else {}


@dataclass(slots=True)
class Guard:
    """Looks at the lineage for one process, and is its third witness. Thread-safe: what threads write at once is close."""

    witnesses: tuple[Witness, ...]
    _memory: dict[UUID, int] = field(default_factory=dict)
    _unasked: dict[UUID, tuple[Witness, ...]] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _silent: set[str] = field(default_factory=set)

    def look(self, cursor: Cursor) -> Standing:
        """Where the database stands now, held if it was restored. One small statement, in the caller's transaction.

        The witnesses are asked once for each lineage; one that is away, again every five seconds.
        """
        standing = read(cursor)
        if standing.held:
            return standing
        self._ask(standing.id)
        reason = self._doubt(standing)
        if reason:
            log.error("database_held", reason=reason)
            cursor.execute(HOLD, {"reason": reason})
            return read(cursor)
        if standing.moved:
            cursor.execute(ADOPT)
        self._remember(standing.id, standing.counter)
        return standing

    def advance(self, cursor: Cursor) -> Callable[[], None]:
        """Count one up unless it is held; the caller calls the result after its commit, which tells the witnesses."""
        standing = self.look(cursor)
        cursor.execute(ADVANCE)
        row = cursor.fetchone()
        return (lambda: self._tell(standing.id, row[0])) if row else (lambda: None)

    def _doubt(self, standing: Standing) -> str:
        highest = self._memory.get(standing.id)
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
        return ""

    def _ask(self, lineage: UUID) -> None:
        unasked = self._unasked.get(lineage, self.witnesses)
        if not unasked or time.monotonic() - self._asked_at < (0 if unasked == self.witnesses else ASK_AGAIN_SECONDS):
            return
        self._asked_at = time.monotonic()
        self._unasked[lineage] = tuple(witness for witness in unasked if not self._answered(witness, lineage))

    def _answered(self, witness: Witness, lineage: UUID) -> bool:
        try:
            seen = witness.seen(lineage)
        except _AWAY as error:
            self._complain(witness, error)
            return False
        if seen is not None:
            self._remember(lineage, seen)
        return True

    def _tell(self, lineage: UUID, counter: int) -> None:
        self._remember(lineage, counter)
        for witness in self.witnesses:
            try:
                witness.saw(lineage, counter)
                self._silent.discard(witness.name)
            except _AWAY as error:
                self._complain(witness, error)

    def _remember(self, lineage: UUID, counter: int) -> None:
        self._memory[lineage] = max(counter, self._memory.get(lineage, 0))

    def _complain(self, witness: Witness, error: Exception) -> None:
        """Once, until it answers again: a read-only disk must not fill the log."""
        if witness.name not in self._silent:
            self._silent.add(witness.name)
            log.warning("witness_is_away", witness=witness.name, error=type(error).__name__, reason=str(error)[:200])


def read(cursor: Cursor) -> Standing:
    """The row as it is; made where there is none."""
    cursor.execute(READ)
    row = cursor.fetchone()
    if row is None:
        cursor.execute(BEGIN, {"id": uuid4()})
        cursor.execute(READ)
        row = cursor.fetchone()
    return Standing(*row)


def arm(cursor: Cursor) -> bool:
    """End the hold; False when nothing was held. Callers decide first what becomes of the messages."""
    cursor.execute(ARM, {"id": uuid4()})
    return cursor.fetchone() is not None


def witnesses() -> Iterable[Witness]:
    """Those of this process: Valkey where there is one, and its file."""
    client = slots()
    if client is not None:
        yield ValkeyWitness(client)
    yield FileWitness(Path(settings.CHASKI_WITNESS))


@cache
def guard() -> Guard:
    """The guard of this process."""
    return Guard(tuple(witnesses()))


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
