"""A connection that does not wait for ever: a server that takes connections and never answers is cut off.

``statement_timeout`` is the server's, so it ends nothing once the server, or something in between that still acknowledges
our packets, has stopped answering; keepalives and ``tcp_user_timeout`` end only what does not acknowledge. Used by the
engine (``deliveries.delivery.database``) and by Django's backend (``deliveries.postgresql.base``).
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

RV = TypeVar("RV")
#: A peer that has closed its side, where the system can tell.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class NoAnswer(psycopg.OperationalError):
    """The server gave no answer in time. What was asked, a COMMIT too, may have been done."""


class BoundedConnection(psycopg.Connection[Any]):
    """psycopg's connection, with at most ``answer_seconds`` for each answer (None: without limit).

    The way to a connection is bounded by libpq's ``connect_timeout``, except for the name server, whose own limits hold.
    """

    #: Django takes this class for the DB-API module of its driver, which has this besides the exceptions.
    Binary = psycopg.Binary

    answer_seconds: float | None = None
    _answered_at = float("-inf")

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's own options go on as they come
        cls, conninfo: str = "", *, answer_seconds: float | None = None, **options: Any
    ) -> Self:
        """As psycopg's; ``answer_seconds`` beside its options."""
        opened = super().connect(conninfo, **options)
        opened.answer_seconds = answer_seconds
        return opened

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for what ``gen`` asked of the server; every blocking operation of psycopg goes through here.

        Raises ``NoAnswer`` when ``answer_seconds`` are over: the connection is closed then, as its next bytes would
        answer this question and not the next one.
        """
        if timeout is not None or self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            answer = super().wait(gen, interval, self.answer_seconds)
            self._answered_at = time.monotonic()
            return answer
        except psycopg.OperationalError as error:
            # An error that the server told has ended the statement; one still under way has run out of time.
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()
            raise NoAnswer(f"no answer within {self.answer_seconds:g} s; the connection was cut") from error

    def was_well(self, seconds: float) -> bool:
        """Did the server answer here in the last ``seconds``, outside of a transaction, and nothing come since?

        Without asking it: an end of the connection, or a notice of one, the kernel knows.
        """
        if self.pgconn.transaction_status != TransactionStatus.IDLE or time.monotonic() - self._answered_at > seconds:
            return False
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN | _HUNG_UP)
        return not poller.poll(0)

    @contextmanager
    def within(self, seconds: float | None) -> Iterator[None]:
        """Wait ``seconds`` for each answer in this block, without limit for None."""
        before, self.answer_seconds = self.answer_seconds, seconds
        try:
            yield
        finally:
            self.answer_seconds = before
