"""Many messages of one batch: checked row by row, committed in chunks, counted. Called by the API and the commands.

While one chunk is committed, by a thread with a connection of its own, the next is checked: PostgreSQL and the interpreter
work at the same time. At most two chunks are in memory, however many rows there are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Lock
from types import TracebackType
from typing import Any, Self

from django.db import connection, connections, transaction
from django.db.models import F

from deliveries.intake.accept import accept
from deliveries.intake.draft import Draft, Errors, InvalidMessage, draft
from deliveries.models import Batch, Service
from deliveries.models.messages import Origin

#: Rows whose keys or ids were used before, with what is wrong.
Refused = Sequence[tuple[int, Errors]]
CHUNK = 500
REJECTED_SHOWN = 10_000


class _Changing:
    """How soon threads change places while batches are taken in: who commits waits for the interpreter at each answer of the
    database, 5 ms as a rule, in which nothing is committed. A single message, which has no second thread, gains nothing by it.
    """

    SECONDS = 0.0005

    def __init__(self) -> None:
        self._lock = Lock()
        self._batches = 0
        self._usual = 0.0

    def more(self) -> None:
        """One batch more."""
        with self._lock:
            if not self._batches:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self.SECONDS, self._usual))
            self._batches += 1

    def less(self) -> None:
        """One batch less."""
        with self._lock:
            self._batches -= 1
            if not self._batches:
                sys.setswitchinterval(self._usual)


_changing = _Changing()


@dataclass(slots=True)
class Counts:
    """What became of the rows. ``rejected``: the first 10,000 bad ones, as (index, errors by field)."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    rejected: list[tuple[int, Errors]] = field(default_factory=list)


class BatchIntake:
    """One batch while it is taken in. Belongs to one thread; a context manager that ends its own."""

    def __init__(self, service: Service, batch: Batch, request_id: str = "") -> None:
        self.service = service
        self.batch = batch
        self.counts = Counts()
        self._request_id = request_id
        self._chunk: list[tuple[int, Draft]] = []
        self._committing: Future[Refused] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.submit(connections.close_all)
            self._thread.shutdown()
            _changing.less()

    def add(self, index: int, row: Any) -> None:
        """Check one row; commit when a chunk is full. Raises the database's errors, an earlier chunk's too."""
        try:
            self._chunk.append((index, draft(self.service, row, request_id=self._request_id)))
        except InvalidMessage as error:
            self.reject(index, error.errors)
        if len(self._chunk) >= CHUNK:
            self._commit_beside()

    def reject(self, index: int, errors: Errors) -> None:
        """Count a bad row; the first 10,000 are told one by one."""
        self.counts.refused += 1
        if len(self.counts.rejected) < REJECTED_SHOWN:
            self.counts.rejected.append((index, errors))

    def finish(self) -> Counts:
        """Commit the rest; what became of all rows."""
        self._wait()
        if self._chunk:
            self._reject_all(self._commit(self._taken()))
        Batch.objects.filter(pk=self.batch.pk).update(rejected=F("rejected") + self.counts.refused)
        self.counts.rejected.sort(key=lambda row: row[0])
        return self.counts

    def _commit_beside(self) -> None:
        self._wait()
        chunk = self._taken()
        if connection.in_atomic_block:  # the caller's transaction is this thread's
            self._reject_all(self._commit(chunk))
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="chaski-intake")
            _changing.more()
        self._committing = self._thread.submit(copy_context().run, self._commit, chunk)

    def _wait(self) -> None:
        committing, self._committing = self._committing, None
        if committing is not None:
            self._reject_all(committing.result())

    def _reject_all(self, refused: Refused) -> None:
        for index, errors in refused:
            self.reject(index, errors)

    def _taken(self) -> list[tuple[int, Draft]]:
        chunk, self._chunk = self._chunk, []
        return chunk

    def _commit(self, chunk: Sequence[tuple[int, Draft]]) -> Refused:
        """Commit what is checked, and its counts with it; what was refused."""
        with transaction.atomic():
            drafts = [item for _, item in chunk]
            answers = accept(drafts, origin=Origin.BATCH, batch_id=self.batch.pk)
            fresh = sum(answer.fresh for answer in answers)
            refused = [(index, a.conflict) for (index, _), a in zip(chunk, answers, strict=True) if a.conflict]
            self._count(fresh, len(chunk) - fresh - len(refused))
        return [(index, {conflict.field: [str(conflict)]}) for index, conflict in refused]

    def _count(self, accepted: int, duplicates: int) -> None:
        self.counts.accepted += accepted
        self.counts.duplicates += duplicates
        Batch.objects.filter(pk=self.batch.pk).update(
            accepted=F("accepted") + accepted, duplicates=F("duplicates") + duplicates
        )
