"""The PostgreSQL and Valkey that subject and yardsticks share: as production runs them, in a temporary folder.

Everybody gets a database and a broker number of his own on the same two servers, so that all measure the same machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import psycopg
import redis

from config.embedded import EmbeddedPostgres, EmbeddedValkey

#: As docker-compose.yml, and the times of commits, by which latencies and the ends of drains are known exactly.
#: As docs/how-to/deploy.md advises: with the usual sizes of the WAL a backlog makes a new segment every second, and everybody's
#: commits wait while it is written full of zeros.
SETTINGS = {
    "shared_buffers": "512MB",
    "min_wal_size": "2GB",
    "max_wal_size": "4GB",
    "max_connections": "300",
    "track_commit_timestamp": "on",
}


class Servers:
    """Both servers, started by ``with``."""

    def __init__(self, home: Path) -> None:
        log = home / "log"
        self.postgres = EmbeddedPostgres(home / "postgres", log=log / "postgres.log", settings=SETTINGS)
        self.valkey = EmbeddedValkey(home / "valkey", log=log / "valkey.log")

    def __enter__(self) -> Self:
        self.postgres.start()
        self.valkey.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.valkey.stop()
        self.postgres.stop()

    def database(self, name: str) -> str:
        """The address of the database ``name``, for libpq, psycopg and `DATABASE_URL`; ``chaski`` is there already."""
        head, _, tail = self.postgres.socket_url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}?{tail}"

    def create(self, name: str) -> None:
        """Make an empty database ``name``, in place of what there was."""
        with psycopg.connect(self.database("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")

    def query(self, sql: str, *parameters: Any, database: str = "chaski") -> list[Any]:
        """Rows of one statement."""
        with psycopg.connect(self.database(database), autocommit=True) as connection:
            return connection.execute(sql, parameters).fetchall()

    def settle(self, database: str = "chaski") -> None:
        """Vacuum, analyse and checkpoint, so that no run pays for the one before."""
        with psycopg.connect(self.database(database), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")
        os.sync()

    def broker(self, number: int) -> str:
        """The broker of this number, as Celery takes it. 0 and 1 are Chaski's."""
        return self.valkey.url.rpartition("=")[0] + f"={number}"

    def client(self, number: int) -> redis.Redis:
        """A client of the same."""
        return redis.Redis(unix_socket_path=str(self.valkey.socket), db=number)

    def pids(self) -> tuple[int, int]:
        """PostgreSQL's and Valkey's process."""
        return self.postgres.process.pid, self.valkey.process.pid
