"""Threads and processes that count and look at once never hold a healthy database; real threads, connections and Valkey."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deliveries.delivery.database import EngineConnection
from deliveries.lineage import READ, Guard, Standing
from deliveries.sql import Cursor
from deliveries.witnesses import ValkeyWitness

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def connect() -> Iterator[Callable[[], EngineConnection]]:
    opened: list[EngineConnection] = []

    def new() -> EngineConnection:
        opened.append(EngineConnection())
        return opened[-1]

    yield new
    for each in opened:
        each.close()


def beat(guard: Guard, connection: EngineConnection) -> None:
    with connection.transaction() as cursor:
        tell = guard.advance(cursor)
    tell()


def look(guard: Guard, connection: EngineConnection) -> Standing:
    with connection.transaction() as cursor:
        return guard.look(cursor)


class Interrupted:
    """A cursor; ``then`` happens once, on a thread of its own, after the row was read and before the answer is judged."""

    def __init__(self, cursor: Cursor, then: Callable[[], None]) -> None:
        self._cursor = cursor
        self._then: Callable[[], None] | None = then

    def execute(self, query: Any, params: Any = None, /) -> Any:
        self._cursor.execute(query, params)
        if query == READ and self._then is not None:
            then, self._then = self._then, None
            with ThreadPoolExecutor(1) as pool:
                pool.submit(then).result()

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()


def test_a_beat_of_the_same_process_between_the_read_and_the_judgement_holds_nothing(
    connect: Callable[[], EngineConnection],
) -> None:
    guard, claims, heartbeat = Guard(()), connect(), connect()
    beat(guard, heartbeat)
    with claims.transaction() as cursor:
        standing = guard.look(Interrupted(cursor, lambda: beat(guard, heartbeat)))
    assert (standing.held, standing.counter) == (False, 1)
    assert (look(guard, claims).held, look(guard, claims).counter) == (False, 2)


def test_a_beat_of_another_process_while_this_one_starts_holds_nothing(
    connect: Callable[[], EngineConnection], valkey: ValkeyWitness
) -> None:
    other, elsewhere = Guard((valkey,)), connect()
    beat(other, elsewhere)
    starting = Guard((valkey,))
    with connect().transaction() as cursor:
        standing = starting.look(Interrupted(cursor, lambda: beat(other, elsewhere)))
    assert not standing.held, standing.reason
    assert not look(starting, elsewhere).held


def test_looks_and_beats_of_many_threads_and_two_processes_hold_nothing(
    connect: Callable[[], EngineConnection], valkey: ValkeyWitness
) -> None:
    guards = [Guard((valkey,)), Guard((valkey,))]
    over = threading.Event()

    def beats(guard: Guard) -> None:
        own = connect()
        for _ in range(60):
            beat(guard, own)

    def looks(guard: Guard) -> list[str]:
        own, found = connect(), []
        while not over.is_set():
            found.append(look(guard, own).reason)
        return found

    with ThreadPoolExecutor(8) as pool:
        looking = [pool.submit(looks, guard) for guard in guards * 2]
        try:
            for done in [pool.submit(beats, guard) for guard in guards]:
                done.result()
        finally:
            over.set()
        reasons = [reason for each in looking for reason in each.result()]
    assert reasons
    assert set(reasons) == {""}
    assert look(guards[0], connect()).counter == 120
