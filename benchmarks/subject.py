"""Chaski as the subject of a benchmark: production settings, production command lines, its own service and accounts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Running
from benchmarks.servers import Servers
from config import local, processes
from config.environment import Secrets
from config.management import Management
from config.ports import any_free
from config.processes import Process

#: Never checked by anybody: the sink takes every login.
SID, TOKEN, SENDER = "AC" + "0" * 32, "benchmark", "+15005550006"


class InsideError(RuntimeError):
    """Something that runs with Chaski's settings failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service of Chaski: whose messages a run is about."""

    id: int
    name: str
    key: str


class Subject:
    """Chaski on ``servers``, migrated. Its processes are started by ``running``."""

    def __init__(self, servers: Servers, home: Path, *, workers: int) -> None:
        self.servers = servers
        self.home = home
        self.workers = workers
        self.port = any_free()
        self.environment = self._variables()
        self.manage = Management(ROOT, self.environment)
        self.manage.run("migrate", "--noinput")
        self._services = 0

    def _variables(self) -> dict[str, str]:
        """Those of docker-compose.yml, every one with a value of its own, as production insists."""
        secrets = Secrets(self.home / "secrets")
        values = {
            "CHASKI_ENV": "production",
            "CHASKI_LOG": "json",
            "CHASKI_SECRET_KEY": secrets["CHASKI_SECRET_KEY"],
            "CHASKI_CREDENTIAL_KEYS": secrets["CHASKI_CREDENTIAL_KEYS"],
            "CHASKI_PUBLIC_URL": "https://chaski.example.com",
            "CHASKI_ALLOWED_HOSTS": "127.0.0.1",
            "CHASKI_SPILL": str(self.home / "spill"),
            "CHASKI_WITNESS": str(self.home / "witness"),
            "DATABASE_URL": self.servers.postgres.url,
            "CHASKI_BROKER_URL": self.servers.valkey.url,
            "CHASKI_CACHE_URL": self.servers.valkey.cache_url,
        }
        return {**local.for_children({}), **values}

    @property
    def url(self) -> str:
        """Where the web process answers, once it runs."""
        return f"http://127.0.0.1:{self.port}"

    def running(
        self, *, web: bool = False, relay: bool = True, apart: bool = False, more: tuple[Process, ...] = ()
    ) -> Running:
        """Workers and a relay, with the web process on demand; the command lines are those of production.

        ``apart``: the urgent lane has a worker of its own besides, as in production; else all take everything.
        """
        usual = [processes.worker(number) for number in range(1, self.workers + 1)]
        started = processes.workers(self.workers) if apart else usual
        if relay:
            started.append(processes.relay())
        if web:
            started.append(processes.web(f"127.0.0.1:{self.port}"))
        broker = self.servers.valkey.url
        port = self.port if web else None
        return Running([*started, *more], self.environment, broker=broker, logs=self.home / "log", port=port)

    def new_service(self) -> Service:
        """A service of its own for each run, so that a run's rows can be told apart."""
        self._services += 1
        made = self.manage.run("service", "create", f"service{self._services}", "--json").document
        return Service(int(made["id"]), str(made["name"]), str(made["api_key"]))

    def sms(self, service: Service, base_url: str, name: str = "main") -> dict[str, Any]:
        """An SMS account of ``service`` at a Twilio whose API is at ``base_url``."""
        options = (f"base_url={base_url}", f"account_sid={SID}", f"from_number={SENDER}")
        return self.account("sms", "twilio", name, service, options, (f"auth_token={TOKEN}",))

    def account(
        self,
        channel: str,
        provider: str,
        name: str,
        service: Service,
        options: tuple[str, ...],
        secrets: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """An account of ``service``; what `manage.py account create --json` says of it."""
        given = [word for option in options for word in ("--option", option)]
        given += [word for secret in secrets for word in ("--secret", secret)]
        command = ("account", "create", channel, provider, name, "--service", service.name, *given, "--json")
        found: dict[str, Any] = self.manage.run(*command).document
        return found

    def inside(self, *arguments: str) -> dict[str, Any]:
        """Run ``benchmarks.inside`` with Chaski's settings; what it printed. Raises ``InsideError``."""
        return inside(self.environment, "benchmarks.inside", *arguments)


def inside(environment: Mapping[str, str], module: str, *arguments: str) -> dict[str, Any]:
    """Run ``module`` in a process with ``environment``; the JSON that it printed last. Raises ``InsideError``."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InsideError(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
