"""Settling what processes left behind that ended while the database was away: the orphans among the spill files.

Called by the recorder, at its start and every so often. Lines go through the same ``settle`` as fresh results, fenced by
their tokens: who was quicker, the sweep say, is not overwritten, and what came late is kept as late. A file is removed
after the COMMIT of its last line only, so that a crash in between repeats what changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from deliveries.conf import limits
from deliveries.delivery.crashes import crash_point
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.halving import by_halves, reason
from deliveries.delivery.lines import VERSION, Unreadable, of_line, to_line, version_of
from deliveries.delivery.locked import free
from deliveries.delivery.settle import Settlement, settle
from deliveries.delivery.spill import REJECTED, RESULTS, TORN, append_safely, fsync_folder, set_aside, taken
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

#: The tokens of attempts that this database knows. A line of any other was written for another database, or for one that
#: was restored from before it.
KNOWN = "SELECT message_id, token FROM attempt WHERE message_id = ANY(%(ids)s::uuid[])"
UNKNOWN = "this database knows no such attempt"


class Replay:
    """Settles orphans of ``folder`` on ``connection``. One thread at a time."""

    def __init__(self, folder: Path, connection: EngineConnection) -> None:
        self._folder = folder
        self._connection = connection
        self._complained: set[str] = set()
        self._round: list[Path] | None = None

    def step(self) -> int | None:
        """Settle the next orphan; how many lines. None after the last of them: then a new round begins.

        Raises ``psycopg.Error`` when the database takes nothing of it now: it stays as it is, and the next one comes next.
        """
        if self._round is None:
            self._round = sorted(self._folder.glob(f"*{RESULTS}"), reverse=True)
        if not self._round:
            self._round = None
            return None
        return self._one(self._round.pop())

    def _one(self, file: Path) -> int:
        try:
            with taken(file) as ours:
                return self._settled(file) if ours else 0
        except (OSError, Unreadable) as error:
            # Another version's, or the disk's: it stays, and `manage.py doctor` shows it.
            if file.name not in self._complained:
                self._complained.add(file.name)
                log.error("spill_not_settled", file=file.name, error=type(error).__name__, reason=str(error)[:200])
            return 0

    def _settled(self, file: Path) -> int:
        found = read(file)
        done = by_halves(partial(self._write, found), [*chunks(found.settlements)])
        all_alike = done.stuck if not done.written and len(done.waiting) > 1 else None
        if (error := done.away or all_alike) is not None:
            raise error
        for row, refusal in done.refused:
            found.reject(row, reason(refusal))
        found.left += len(done.waiting)
        if found.left:
            # The next run settles them; those that are settled already change nothing once more.
            log.warning("spill_waits_for_locked_rows", file=file.name, results=found.left)
            return found.known
        keep_aside(file, found)
        crash_point("after_replay")
        file.unlink()
        fsync_folder(self._folder)
        log.warning("spill_settled", file=file.name, results=len(found.settlements), known=found.known)
        return len(found.settlements)

    def _write(self, found: Found, rows: Sequence[Settlement]) -> None:
        """Settle rows in one transaction, but those that the database does not know, or of which somebody holds something."""
        with self._connection.transaction() as cursor:
            lost = unknown(cursor, rows)
            known = [row for row in rows if row not in lost]
            going = free(cursor, known)
            settle(cursor, going)
        for row in lost:
            found.reject(row, UNKNOWN)
        found.known += len(going)
        found.left += len(known) - len(going)


@dataclass(slots=True)
class Found:
    """What a file holds: settlements, lines that are set aside with their reasons, and what a crash cut off.

    ``known``: settlements that the database has taken. ``left``: those that wait, for a row that somebody holds, say.
    """

    settlements: list[Settlement] = field(default_factory=list)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)
    torn: bytes = b""
    known: int = 0
    left: int = 0

    def reject(self, row: Settlement, reason: str) -> None:
        """Set one aside."""
        self.rejected.append((to_line(row), reason))


def unknown(cursor: Cursor, rows: Sequence[Settlement]) -> list[Settlement]:
    """Those of ``rows`` whose attempts this database does not know."""
    if not rows:
        return []
    cursor.execute(KNOWN, {"ids": [row.id for row in rows]})
    known = {(row[0], row[1]) for row in cursor.fetchall()}
    return [row for row in rows if (row.id, row.token) not in known]


def read(file: Path) -> Found:
    """What ``file`` holds; nothing when its owner died before the first line. Raises ``Unreadable``, ``OSError``."""
    whole, _, torn = file.read_bytes().rpartition(b"\n")
    found = Found(torn=torn)
    if not whole:
        return found
    head, *lines = whole.split(b"\n")
    if (version := version_of(head)) != VERSION:
        raise Unreadable(f"it is of version {version}; this code reads version {VERSION}")
    for line in lines:
        try:
            found.settlements.append(of_line(line))
        except Unreadable as error:
            found.rejected.append((line, str(error)))
    return found


def keep_aside(file: Path, found: Found) -> None:
    """Keep beside ``file`` what of it went nowhere, for people. Raises ``OSError``; then the file must stay."""
    if found.torn:
        append_safely(file.with_suffix(TORN), found.torn + b"\n")
        log.warning("spill_line_torn", file=file.name, bytes=len(found.torn))
    if found.rejected:
        set_aside(file.with_suffix(REJECTED), found.rejected)
        reasons = sorted({reason for _, reason in found.rejected})[:5]
        log.error("spill_lines_rejected", file=file.name, lines=len(found.rejected), reasons=reasons)


def chunks(settlements: Sequence[Settlement]) -> Iterator[list[Settlement]]:
    """At most 250 at once in their order, and no message twice in one: two attempts of it may lie in one file."""
    chunk: list[Settlement] = []
    ids: set[UUID] = set()
    for row in settlements:
        if row.id in ids or len(chunk) >= limits().record_rows:
            yield chunk
            chunk, ids = [], set()
        chunk.append(row)
        ids.add(row.id)
    if chunk:
        yield chunk
