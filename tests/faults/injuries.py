"""What the nemesis can do to a system: each injury is a context manager that undoes itself, chosen by its name.

A block lasts as long as the injury does. Injuries of different servers may overlap.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import cycle

import psycopg
import redis

from tests.faults.proxy import Proxy, Way
from tests.faults.system import RELAYS, WORKERS, FaultSystem

Injury = Callable[[FaultSystem, random.Random], AbstractContextManager[None]]


@contextmanager
def again_and_again(act: Callable[[], object], seconds: float) -> Iterator[None]:
    """Do ``act`` at once and every ``seconds`` while the block runs."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            with suppress(ProcessLookupError, redis.RedisError, psycopg.Error):
                act()
            done.wait(seconds)

    thread = threading.Thread(target=run, name="injury", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(20)


def killed(*names: str, seconds: float = 6.0) -> Injury:
    """kill -9 of one of ``names``, every few seconds."""
    return lambda system, chance: again_and_again(lambda: system.kill(chance.choice(names)), seconds)


def restarted(system: FaultSystem, chance: random.Random) -> AbstractContextManager[None]:
    """SIGTERM to one worker after the other."""
    turns = cycle(WORKERS)
    return again_and_again(lambda: system.kill(next(turns), signal.SIGTERM), 9.0)


def stopped(*names: str) -> Injury:
    """SIGSTOP of one of ``names`` for the whole block."""

    @contextmanager
    def injure(system: FaultSystem, chance: random.Random) -> Iterator[None]:
        pid = system.pids()[chance.choice(names)]
        with suppress(ProcessLookupError), system.frozen(pid):
            yield

    return injure


@contextmanager
def no_relay(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """Neither relay runs."""
    with system.without(*RELAYS):
        yield


@contextmanager
def no_beat(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """No beat runs."""
    with system.without("beat"):
        yield


@contextmanager
def no_database(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """kill -9 of PostgreSQL; it comes back at the end."""
    system.postgres.kill()
    yield
    system.postgres.start()


def database_restarts(system: FaultSystem, _: random.Random) -> AbstractContextManager[None]:
    """Sessions ended by an administrator, again and again, as by a fast restart or a failover."""

    def end_sessions() -> None:
        with psycopg.connect(system.postgres.socket_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    return again_and_again(end_sessions, 3.0)


@contextmanager
def database_locked(system: FaultSystem, chance: random.Random) -> Iterator[None]:
    """Somebody holds a table."""
    table = chance.choice(["pending", "message", "attempt", "account"])
    with psycopg.connect(system.postgres.socket_url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def database_read_only(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """A database that can only be read, as after a failover to the wrong server."""
    _set_read_only(system, "on")
    try:
        yield
    finally:
        _set_read_only(system, "off")


def _set_read_only(system: FaultSystem, value: str) -> None:
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def commits_cut(system: FaultSystem, chance: random.Random) -> Iterator[None]:
    """Connections end around what commits (a COMMIT, or a statement by itself), before it arrives or before its answer does."""
    what = chance.choice((b"COMMIT", b"INSERT INTO attempt", b"SET begun_at", b"INSERT INTO acceptance"))
    cut = system.database.cut_at(Way.TO_SERVER, what, before=chance.random() < 0.5, times=chance.randint(1, 30))
    yield
    cut.times = 0


@contextmanager
def no_broker(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """kill -9 of Valkey; it comes back with what it had."""
    system.valkey.kill()
    yield
    system.valkey.start()


@contextmanager
def empty_broker(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """Valkey dies and comes back with nothing."""
    system.valkey.wipe()
    yield


def broker_emptied(system: FaultSystem, _: random.Random) -> AbstractContextManager[None]:
    """FLUSHALL, again and again."""
    return again_and_again(lambda: _broker(system, "FLUSHALL"), 2.0)


@contextmanager
def full_broker(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """Valkey at its memory's end."""
    _broker(system, "CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        _broker(system, "CONFIG", "SET", "maxmemory", "0")


def _broker(system: FaultSystem, *command: str) -> None:
    client = redis.Redis(unix_socket_path=str(system.valkey.socket), socket_timeout=5)
    try:
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    finally:
        client.close()


@contextmanager
def hung_broker(system: FaultSystem, _: random.Random) -> Iterator[None]:
    """Valkey takes connections and answers nothing."""
    os.kill(system.valkey.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(system.valkey.process.pid, signal.SIGCONT)


def network(which: str, how: str, seconds: float | None = None) -> Injury:
    """What the proxy ``which`` does to its connections for the block; ``seconds`` repeats a reset."""

    @contextmanager
    def injure(system: FaultSystem, _: random.Random) -> Iterator[None]:
        proxy: Proxy = getattr(system, which)
        try:
            if how == "delay":
                proxy.delay(0.15)
                yield
            elif seconds is not None:
                with again_and_again(getattr(proxy, how), seconds):
                    yield
            else:
                getattr(proxy, how)()
                yield
        finally:
            proxy.heal()

    return injure


@contextmanager
def crash_points(system: FaultSystem, chance: random.Random) -> Iterator[None]:
    """Processes die or freeze for a moment at points of the path."""
    points = ["after_claim", "after_begin", "in_send", "after_answer", "before_record", "after_record"]
    points += ["relay_before_commit", "relay_after_commit", "relay_before_ring"]
    for point in chance.sample(points, 3):
        system.crash_at(point)
    yield


#: By name; the word before the first space is the server, and two injuries of one server never meet.
INJURIES: dict[str, Injury] = {
    "workers killed": killed(*WORKERS),
    "workers restarted": restarted,
    "workers frozen": stopped(*WORKERS),
    "workers at crash points": crash_points,
    "relays killed": killed(*RELAYS),
    "relays frozen": stopped(*RELAYS),
    "relays absent": no_relay,
    "beat absent": no_beat,
    "database killed": no_database,
    "database sessions ended": database_restarts,
    "database locked": database_locked,
    "database read-only": database_read_only,
    "database commits cut": commits_cut,
    "database unreachable": network("database", "refuse"),
    "database swallows": network("database", "hold"),
    "database resets": network("database", "reset", 2.0),
    "database slow": network("database", "delay"),
    "broker killed": no_broker,
    "broker replaced by an empty one": empty_broker,
    "broker emptied": broker_emptied,
    "broker full": full_broker,
    "broker hung": hung_broker,
    "broker swallows": network("broker_proxy", "hold"),
    "broker resets": network("broker_proxy", "reset", 1.2),
    "broker slow": network("broker_proxy", "delay"),
    "vendor killed": killed("simulator", seconds=8.0),
    "vendor unreachable": network("vendor", "refuse"),
    "vendor swallows": network("vendor", "hold"),
    "vendor resets": network("vendor", "reset", 1.0),
    "vendor slow": network("vendor", "delay"),
    "web killed": killed("web", seconds=10.0),
    "web resets": network("api", "reset", 1.0),
    "web swallows": network("api", "hold"),
}


def draw(chance: random.Random) -> list[str]:
    """One to three injuries, at most one of each server."""
    wanted = chance.randint(1, 3)
    drawn: dict[str, str] = {}
    for name in chance.sample(sorted(INJURIES), len(INJURIES)):
        drawn.setdefault(name.split(" ")[0], name)
    return list(drawn.values())[:wanted]
