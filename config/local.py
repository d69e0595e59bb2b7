"""The parts of a system on one machine: embedded servers, ports, and the variables that tie them together.

Used by `config.up`; the order in which they come up is its business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import urllib3
from celery import Celery

from config import environment
from config.embedded import EmbeddedPostgres, EmbeddedValkey
from config.embedded.server import EmbeddedServer
from config.environment import Secrets
from config.ports import next_free
from config.processes import Ports

ROOT = Path(__file__).resolve().parent.parent
FOLDER = environment.FOLDER
READY_SECONDS = 90.0
WORKER_SECONDS = 30.0

#: What means nothing without the database that it was made for.
WITH_THE_DATABASE = ("environment", "secrets", "simulator.jsonl", "beat-schedule*", "spill/*")

SERVERS = ("DATABASE_URL", "CHASKI_BROKER_URL", "CHASKI_CACHE_URL")
ROOT_WORKER = "ignore:You're running the worker with superuser privileges"


class NotReadyError(Exception):
    """The web process did not become ready; says what it answered last."""


def embedded_servers() -> dict[str, EmbeddedServer]:
    """The servers of `.chaski/`, not started, by the variable that makes each superfluous."""
    log = FOLDER / "log"
    return {
        "DATABASE_URL": EmbeddedPostgres(FOLDER / "postgres", log=log / "postgres.log"),
        "CHASKI_BROKER_URL": EmbeddedValkey(FOLDER / "valkey", log=log / "valkey.log"),
    }


def drop(servers: Iterable[EmbeddedServer]) -> None:
    """Delete their data, and with the database the secrets that encrypt what is in it."""
    for server in servers:
        server.drop()
        if isinstance(server, EmbeddedPostgres):
            for pattern in WITH_THE_DATABASE:
                for file in FOLDER.glob(pattern):
                    file.unlink()


def choose_ports() -> Ports:
    """The usual ports, or for each the next free one."""
    chosen: list[int] = []
    for wanted in (8000, 5555, 8900, 8925):
        chosen.append(next_free(wanted, taken=chosen))
    return Ports(*chosen)


def variables(servers: Iterable[EmbeddedServer], ports: Ports, secrets: Secrets) -> dict[str, str]:
    """The variables of this system. Those that are set in our own environment already win."""
    made = {
        "CHASKI_ENV": "development",
        "CHASKI_SECRET_KEY": secrets["CHASKI_SECRET_KEY"],
        "CHASKI_CREDENTIAL_KEYS": secrets["CHASKI_CREDENTIAL_KEYS"],
        "CHASKI_PUBLIC_URL": f"http://127.0.0.1:{ports.web}",
        "CHASKI_FLOWER_URL": f"http://127.0.0.1:{ports.flower}",
        "FLOWER_BASIC_AUTH": f"admin:{secrets['FLOWER_PASSWORD']}",
    }
    for server in servers:
        made |= _addresses(server)
    return made | {name: os.environ[name] for name in (*made, *SERVERS) if os.environ.get(name)}


def _addresses(server: EmbeddedServer) -> dict[str, str]:
    if isinstance(server, EmbeddedPostgres):
        return {"DATABASE_URL": server.url}
    if isinstance(server, EmbeddedValkey):
        return {"CHASKI_BROKER_URL": server.url, "CHASKI_CACHE_URL": server.cache_url}
    return {}


def for_children(values: Mapping[str, str]) -> dict[str, str]:
    """Everything that the processes see."""
    given = {**os.environ, **values, "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "config.settings"}
    if os.geteuid() == 0:  # trying Chaski as root is allowed, and its workers accept nothing but JSON
        given["PYTHONWARNINGS"] = ROOT_WORKER
    return given


def wait_for_workers(broker: str, count: int) -> int:
    """Return once ``count`` workers answer, or after half a minute; gives how many did."""
    with Celery(broker=broker, set_as_current=False) as asking:
        deadline = time.monotonic() + WORKER_SECONDS
        while True:
            # One of kombu's pool, which is everybody's, may still be open to a broker that is gone.
            with asking.connection_for_write() as own:
                answers = len(asking.control.ping(timeout=1.0, limit=count, connection=own) or ())
            if answers >= count or time.monotonic() > deadline:
                return answers


def wait_until_ready(url: str) -> None:
    """Return when it answers 200. Raises `NotReadyError` with its last answer after a minute and a half."""
    pool = urllib3.PoolManager(timeout=5.0, retries=False)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            answer = pool.request("GET", url)
            last = f"answered {answer.status}: {answer.data.decode(errors='replace')[:500]}"
            if answer.status == 200:
                return
        except urllib3.exceptions.HTTPError as error:
            last = f"gave no answer ({type(error).__name__})"
        if time.monotonic() > deadline:
            raise NotReadyError(f"{url} {last} after {READY_SECONDS:.0f} s; see .chaski/log/web.log.")
        time.sleep(0.2)
