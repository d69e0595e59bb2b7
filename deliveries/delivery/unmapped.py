"""Codes of vendors that no table of ours knows, counted so that somebody adds them. Called when attempts are settled.

`doctor` and the admin show them. Such a code was classed by its HTTP status, which may be wrong.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock
from typing import Protocol
from uuid import UUID

from deliveries.retry import Outcome
from deliveries.sql import Cursor, as_json

#: A code that comes a thousand times in a second is written once in so many, with its count: all workers write the same row.
EVERY_SECONDS = 10.0
#: Codes that a process remembers.
MOST = 1_000

KEEP = """
INSERT INTO unmapped_code (provider, code, error_class, detail, message_id, times)
SELECT a.provider, r.code, max(r.error_class), max(r.detail), (array_agg(r.message_id))[1], sum(r.times)
FROM jsonb_to_recordset(%(rows)s::jsonb)
    AS r(account_id int, code text, error_class text, detail text, message_id uuid, times bigint)
JOIN account a ON a.id = r.account_id GROUP BY a.provider, r.code ORDER BY a.provider, r.code
ON CONFLICT (provider, code) DO UPDATE SET times = unmapped_code.times + excluded.times, last_at = chaski_now(),
    error_class = excluded.error_class, detail = excluded.detail, message_id = excluded.message_id
"""


class Attempted(Protocol):
    """What is needed of a settlement."""

    @property
    def id(self) -> UUID: ...

    @property
    def account_id(self) -> int: ...

    @property
    def outcome(self) -> Outcome: ...


class Unmapped:
    """The counts of one process that are not written yet. Thread-safe; what a process holds when it dies is not counted."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._times: dict[tuple[int, str], int] = {}
        self._written_at: dict[tuple[int, str], float] = {}

    def keep(self, cursor: Cursor, rows: Sequence[Attempted]) -> None:
        """Count ``rows``; write those whose codes were not written for a while."""
        latest = {(row.account_id, row.outcome.code): row for row in rows}
        due = self._due([(row.account_id, row.outcome.code) for row in rows])
        if not due:
            return
        written = [
            {
                "account_id": key[0],
                "code": key[1],
                "error_class": latest[key].outcome.error_class,
                "detail": latest[key].outcome.detail,
                "message_id": latest[key].id,
                "times": times,
            }
            for key, times in due.items()
        ]
        cursor.execute(KEEP, {"rows": as_json(written)})

    def _due(self, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
        now = time.monotonic()
        with self._lock:
            for key in keys:
                self._times[key] = self._times.get(key, 0) + 1
            due = {key for key in keys if now - self._written_at.get(key, float("-inf")) >= EVERY_SECONDS}
            if len(self._written_at) > MOST:  # a vendor whose codes are all different
                self._times.clear()
                self._written_at.clear()
            self._written_at.update(dict.fromkeys(due, now))
            return {key: self._times.pop(key, 1) for key in sorted(due)}


unmapped = Unmapped()
