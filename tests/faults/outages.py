"""The ways in which the database is away in its rows: each is a context manager that undoes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg

from tests.faults.system import FaultSystem

Outage = Callable[[FaultSystem], AbstractContextManager[None]]


@contextmanager
def restarted(system: FaultSystem) -> Iterator[None]:
    """A fast shutdown: open transactions are rolled back, sessions end."""
    system.postgres.stop()
    yield
    system.postgres.start()


@contextmanager
def killed(system: FaultSystem) -> Iterator[None]:
    """kill -9 of the postmaster."""
    system.postgres.kill()
    yield
    system.postgres.start()


@contextmanager
def read_only(system: FaultSystem) -> Iterator[None]:
    """Every transaction reads only, as on a standby or a full disk's guard."""
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def locked(system: FaultSystem) -> Iterator[None]:
    """Somebody holds the two busiest tables for himself."""
    with psycopg.connect(system.postgres.socket_url) as connection:
        connection.execute("LOCK TABLE pending, message IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextmanager
def black_holed(system: FaultSystem) -> Iterator[None]:
    """The network swallows what is said to it."""
    system.database.hold()
    yield
    system.database.heal()
