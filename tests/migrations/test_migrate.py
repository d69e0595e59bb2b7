"""`manage.py migrate` on a live database: it holds nobody up, insists, says why it gave up, and mends what was cut off."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.api.server import database_url
from tests.processes.system import wait_for

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
LOCKS = "SELECT count(*) FROM pg_locks WHERE relation = 'pending'::regclass AND mode = %s AND granted = %s"


@pytest.fixture(scope="module")
def server() -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url("postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def schema(server: psycopg.Connection) -> Iterator[str]:
    """A database with today's schema, to copy."""
    server.execute("CREATE DATABASE migrating")
    assert ended(migrate(database_url("migrating"), settings="config.settings"))[0] == 0
    yield "migrating"
    server.execute("DROP DATABASE migrating WITH (FORCE)")


@pytest.fixture
def database(server: psycopg.Connection, schema: str) -> Iterator[str]:
    """A database of one's own with today's schema."""
    server.execute(f"CREATE DATABASE migrated TEMPLATE {schema}")
    yield database_url("migrated")
    server.execute("DROP DATABASE migrated WITH (FORCE)")


def migrate(url: str, *flags: str, settings: str = "tests.migrations.later_settings") -> subprocess.Popen[str]:
    """The command in a process of its own, with the migrations of a later release."""
    variables = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": settings}
    command = [sys.executable, "manage.py", "migrate", "--noinput", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said."""
    err = process.communicate(timeout=120)[1]
    return process.returncode, err


@contextmanager
def reading(url: str) -> Iterator[psycopg.Connection]:
    """A transaction that has read the table and stays open with its snapshot, as `pg_dump` does."""
    with psycopg.connect(url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM pending")
        yield reader
        reader.rollback()


def one(url: str, sql: str, *parameters: object) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(sql, parameters).fetchone()
        assert row is not None
        return row[0]


def slowest(url: str, process: subprocess.Popen[str], seconds: float) -> float:
    """How long the slowest of many short writes took beside ``process``."""
    took = [0.0]
    until = time.monotonic() + seconds
    with psycopg.connect(url, autocommit=True) as writer:
        while time.monotonic() < until and process.poll() is None:
            begun = time.monotonic()
            writer.execute("UPDATE pending SET due_at = due_at WHERE false")
            took.append(time.monotonic() - begun)
            time.sleep(0.01)
    return max(took)


def test_behind_a_long_transaction_it_holds_nobody_up_and_ends_when_that_does(database: str) -> None:
    with reading(database):
        process = migrate(database)
        wait_for(lambda: one(database, LOCKS, "AccessExclusiveLock", False), 60, "it wanting the table for itself")
        held_up = slowest(database, process, 6)
        assert process.poll() is None, "it insists"
    code, err = ended(process)
    assert code == 0, err
    assert 0.3 < held_up < 3, "others waited behind it, and for no longer than it may"
    assert "A lock was not free; nothing was changed. Attempt 2 in" in err
    assert one(database, "SELECT count(*) FROM django_migrations WHERE name IN ('0900_column', '0901_index')") == 2


def test_it_gives_up_with_a_sentence_and_keeps_nothing(database: str) -> None:
    with reading(database):
        process = migrate(database, "--attempts", "2", "--lock-timeout", "0.2")
        code, err = ended(process)
    assert code == 1
    assert "CommandError: the lock was not free within 0.2 s, 2 times; nothing of this migration was kept" in err
    assert "Traceback" not in err
    assert one(database, "SELECT count(*) FROM django_migrations WHERE name = '0900_column'") == 0


def test_an_index_that_was_cut_off_is_made_again(database: str) -> None:
    assert ended(migrate(database, "deliveries", "0900"))[0] == 0
    with reading(database):
        process = migrate(database)
        sql = "SELECT count(*) FROM pg_index WHERE indexrelid::regclass::text = 'pending_shard' AND NOT indisvalid"
        wait_for(lambda: one(database, sql), 60, "the index being made")
        assert slowest(database, process, 3) < 0.9, (
            "it waits for the reader without holding anybody up, for more than a second"
        )
        assert process.poll() is None
        process.kill()
        ended(process)
        one(database, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%'")
    assert one(database, sql) == 1, "what was cut off is there and of no use"
    code, err = ended(migrate(database))
    assert code == 0, err
    assert one(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'pending_shard'::regclass") is True
