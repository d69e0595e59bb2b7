"""Circuit breakers: an account whose provider is down costs no attempts, but for one message now and then that tries it.

Used by the claims. Each process counts the answers of an account; the breaker itself is a row, for all processes and for
people, with its history beside it. While it is open its messages wait; the process that takes the probe sends one of them,
and its answer closes the breaker or leaves it open for longer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import structlog

from deliveries.conf import timings
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

#: So many answers of an account within so many seconds, and such a share of them bad, open its breaker.
ANSWERS, SECONDS, SHARE = 20, 10.0, 0.8
#: Codes of outcomes that are no answers of a vendor.
OUR_OWN = frozenset({"no_time_left", "no_room", "file_unavailable", "upload_under_way"})
#: From the opening to the first probe; twice as long after each that failed, up to the limit.
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 30.0
#: Where nothing of the account was due after all, the probe is somebody's again.
UNUSED_SECONDS = 1.0

OPEN = """
WITH opened AS (
    INSERT INTO breaker (account_id, opened_at, probe_at, probes)
    VALUES (%(account)s, chaski_now(), chaski_now() + make_interval(secs => %(first)s), 0)
    ON CONFLICT (account_id) DO NOTHING RETURNING account_id
)
INSERT INTO breaker_event (account_id, at, change, detail)
SELECT account_id, chaski_now(), 'opened', %(detail)s FROM opened RETURNING account_id
"""
#: Who takes a probe has it for the time of a call: if he vanishes, somebody else tries.
TAKE = """
UPDATE breaker SET probe_at = chaski_now() + make_interval(secs => %(lease)s) WHERE account_id = ANY(ARRAY(
    SELECT account_id FROM breaker WHERE account_id = ANY(%(accounts)s::int[]) AND probe_at <= chaski_now()
    FOR UPDATE SKIP LOCKED))
RETURNING account_id
"""
UNUSED = """
UPDATE breaker SET probe_at = chaski_now() + make_interval(secs => %(seconds)s) WHERE account_id = ANY(%(accounts)s::int[])
"""
FAILED = """
WITH failed AS (
    UPDATE breaker SET probes = probes + 1,
        probe_at = chaski_now() + make_interval(secs => least(%(longest)s, %(first)s * 2 ^ least(probes + 1, 20)))
    WHERE account_id = %(account)s RETURNING account_id
)
INSERT INTO breaker_event (account_id, at, change, detail)
SELECT account_id, chaski_now(), 'probed', %(detail)s FROM failed RETURNING account_id
"""
CLOSE = """
WITH closed AS (DELETE FROM breaker WHERE account_id = %(account)s RETURNING account_id, opened_at, probes)
INSERT INTO breaker_event (account_id, at, change, detail)
SELECT account_id, chaski_now(), 'closed', 'after ' || round(extract(epoch FROM chaski_now() - opened_at)) || ' s and '
    || probes || ' failed probes' FROM closed RETURNING account_id
"""


@dataclass(slots=True)
class _Answers:
    """Of one account, since ``begun`` (monotonic)."""

    begun: float = field(default_factory=time.monotonic)
    good: int = 0
    bad: int = 0

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.begun <= SECONDS

    @property
    def hopeless(self) -> bool:
        return self.good + self.bad >= ANSWERS and self.bad >= SHARE * (self.good + self.bad)


class Breakers:
    """What one process knows and does of them. Thread-safe: answers come from the loop, claims from the tasks."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answers] = {}
        #: The message that was claimed as the probe of an account.
        self._probes: dict[int, UUID] = {}
        self._due: deque[Callable[[Cursor], None]] = deque()
        self._lock = threading.Lock()

    @property
    def due(self) -> bool:
        """Is there anything to write?"""
        return bool(self._due)

    def answered(self, account_id: int, message_id: UUID, code: str, *, bad: bool) -> None:
        """A call through the account ended, with ``code`` if it was ``bad``. What follows is written by the next ``flush``."""
        if code in OUR_OWN:
            return
        with self._lock:
            if self._probes.get(account_id) == message_id:
                del self._probes[account_id]
                self._answers.pop(account_id, None)
                self._due.append(partial(_probed, account_id, code, bad=bad))
                return
            answers = self._answers.get(account_id)
            if answers is None or not answers.fresh:
                answers = self._answers[account_id] = _Answers()
            answers.bad += bad
            answers.good += not bad
            if answers.hopeless:
                del self._answers[account_id]
                told = f"{answers.bad} of {answers.good + answers.bad} calls failed, the last with {code}"
                self._due.append(partial(_open, account_id, told))

    def flush(self, cursor: Cursor) -> bool:
        """Write what followed from answers; whether there was anything. Raises ``psycopg.Error``, and keeps it then."""
        wrote = False
        while True:
            with self._lock:
                if not self._due:
                    return wrote
                write = self._due.popleft()
            try:
                write(cursor)
            except BaseException:
                with self._lock:
                    self._due.appendleft(write)
                raise
            wrote = True

    def take(self, cursor: Cursor, accounts: Iterable[int]) -> frozenset[int]:
        """Those of the open ``accounts`` whose probe is this process's now: one message, or ``unused``."""
        cursor.execute(TAKE, {"accounts": sorted(accounts), "lease": _lease()})
        return frozenset(row[0] for row in cursor.fetchall())

    def claimed(self, cursor: Cursor, probes: Set[int], messages: Iterable[tuple[int, UUID]]) -> None:
        """What was claimed (account, message) where ``probes`` were taken: nothing may have been due after all."""
        found = {account_id: message_id for account_id, message_id in messages if account_id in probes}
        with self._lock:
            self._probes |= found
        if probes - found.keys():
            _unused(sorted(probes - found.keys()), cursor)

    def left(self, account_id: int, message_id: UUID) -> None:
        """The message is not sent after all; if it was the probe, it is somebody's again."""
        with self._lock:
            if self._probes.get(account_id) == message_id:
                del self._probes[account_id]
                self._due.append(partial(_unused, [account_id]))


def _lease() -> float:
    return 20.0 * timings().scale


def _unused(accounts: list[int], cursor: Cursor) -> None:
    cursor.execute(UNUSED, {"accounts": accounts, "seconds": UNUSED_SECONDS * timings().scale})


def _open(account_id: int, detail: str, cursor: Cursor) -> None:
    cursor.execute(OPEN, {"account": account_id, "first": FIRST_SECONDS * timings().scale, "detail": detail})
    if cursor.fetchall():
        log.warning("breaker_opened", account=account_id, detail=detail)


def _probed(account_id: int, code: str, cursor: Cursor, *, bad: bool) -> None:
    scale = timings().scale
    if bad:
        given = {
            "account": account_id,
            "first": FIRST_SECONDS * scale,
            "longest": LONGEST_SECONDS * scale,
            "detail": code,
        }
        cursor.execute(FAILED, given)
        return
    cursor.execute(CLOSE, {"account": account_id})
    if cursor.fetchall():
        log.info("breaker_closed", account=account_id)
