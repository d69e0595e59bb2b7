"""`bin/up`: all of Chaski on one machine, with sample messages, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError as BrokerError

from config import environment, local, processes
from config.embedded import ServerStartError
from config.embedded.errors import InUseError
from config.embedded.process import locked
from config.embedded.server import EmbeddedServer
from config.environment import Secrets
from config.local import FOLDER, ROOT, NotReadyError
from config.management import Management, ManagementError
from config.ports import NoFreePortError
from config.sample import Sample, SampleError, Simulator
from config.screen import Screen
from config.supervisor import Supervisor

PROBLEMS = (ServerStartError, ManagementError, SampleError, NoFreePortError, NotReadyError, BrokerError)
IN_USE = "already running here: another bin/up holds .chaski/up.lock; its addresses are in .chaski/environment"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    once: bool
    messages: int
    fresh: bool
    json: bool


def options_of(arguments: Sequence[str] | None) -> Options:
    """Read the command line; ``--help`` and mistakes end the process as people expect."""
    parser = argparse.ArgumentParser(
        prog="bin/up",
        description="Start all of Chaski on this machine, send sample messages, stay until Ctrl-C.",
        epilog="DATABASE_URL and CHASKI_BROKER_URL, when set, are used instead of the embedded servers.",
    )
    add = parser.add_argument
    add("--once", action="store_true", help="end when the samples are final: 0 if the ledger balances, else 1")
    add("--messages", type=_count, default=1000, metavar="N", help="how many samples (1000)")
    add("--fresh", action="store_true", help="begin with empty embedded servers: drops the data in .chaski/")
    add("--json", action="store_true", help="print the result of the samples on stdout")
    return Options(**vars(parser.parse_args(arguments)))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the result is the exit code."""
    options = options_of(arguments)
    screen = Screen()
    screen.say("starting; Ctrl-C stops everything")
    _stop_on_signals()
    (FOLDER / "static").mkdir(parents=True, exist_ok=True)  # where collected files would lie
    try:
        with locked(FOLDER / "up.lock"):
            return Up(options, screen).run()
    except InUseError:
        screen.say(IN_USE)
    except PROBLEMS as problem:
        screen.say(str(problem))
    except KeyboardInterrupt:
        screen.say("stopped")
        return 130 if options.once else 0
    return 1


def _stop_on_signals() -> None:
    """Also SIGINT, which a shell makes its background commands ignore; but `nohup` means what it says."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class Up:
    """One run, from the empty machine to the last process reaped."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self._options = options
        self._screen = screen

    def run(self) -> int:
        """Everything in order. Whatever is raised on the way, nothing stays running."""
        with ExitStack() as stack:
            servers = self._start_servers(stack)
            ports = local.choose_ports()
            secrets = Secrets(FOLDER / "secrets")
            values = local.variables(servers, ports, secrets)
            manage = Management(ROOT, local.for_children(values))
            self._prepare(manage, secrets)
            environment.write(values)  # now that they are known to be right
            self._start_processes(stack, manage, ports, servers)
            return self._serve(manage, ports, secrets)

    def _start_servers(self, stack: ExitStack) -> list[EmbeddedServer]:
        servers = local.embedded_servers()
        for variable in [name for name in servers if os.environ.get(name)]:
            self._screen.say(f"{variable} is set: using {_place(os.environ[variable])}")
            del servers[variable]
        if self._options.fresh:
            local.drop(servers.values())
            self._screen.say("dropped the data of the embedded servers")
        for server in servers.values():
            stack.enter_context(server)
            self._screen.say(f"embedded {server.name} on {server.data}")
        stack.callback(self._screen.say, "stopping the servers...")
        return list(servers.values())

    def _prepare(self, manage: Management, secrets: Secrets) -> None:
        """Bring the database up to date, with somebody who may enter the admin."""
        self._screen.say("migrating the database")
        manage.run("migrate", "--noinput")
        login = {"USERNAME": "admin", "EMAIL": "admin@chaski.example", "PASSWORD": secrets["ADMIN_PASSWORD"]}
        variables = {f"DJANGO_SUPERUSER_{name}": value for name, value in login.items()}
        try:
            manage.run("createsuperuser", "--noinput", variables=variables)
        except ManagementError as error:
            if "already taken" not in error.said:
                raise

    def _start_processes(
        self, stack: ExitStack, manage: Management, ports: processes.Ports, servers: list[EmbeddedServer]
    ) -> None:
        begun = time.monotonic()
        self._screen.say("starting web, workers, relay, beat, Flower and the provider simulator")
        supervisor = Supervisor(
            manage.environment, folder=ROOT, logs=FOLDER / "log", show=self._screen.show, servers=servers
        )
        stack.enter_context(supervisor)
        stack.callback(self._screen.say, "stopping the processes...")
        *others, flower = processes.everything(ports)
        for process in others:
            supervisor.start(process)
        local.wait_until_ready(f"http://127.0.0.1:{ports.web}/health/ready")
        self._wait_for_workers(manage.environment["CHASKI_BROKER_URL"], others)
        supervisor.start(flower)
        self._screen.say(f"ready after {time.monotonic() - begun:.0f} s at http://127.0.0.1:{ports.web}")

    def _wait_for_workers(self, broker: str, started: Sequence[processes.Process]) -> None:
        wanted = sum(process.name.startswith("worker") for process in started)
        answering = local.wait_for_workers(broker, wanted)
        if answering < wanted:
            self._screen.say(f"only {answering} of {wanted} workers answer; see .chaski/log/worker1.log")

    def _serve(self, manage: Management, ports: processes.Ports, secrets: Secrets) -> int:
        base = f"http://127.0.0.1:{ports.web}"
        urls = {
            "admin": f"{base}/admin/",
            "docs": f"{base}/api/docs",
            "api": f"{base}/api/v1",
            "flower": f"http://127.0.0.1:{ports.flower}/",
            "simulator": f"http://127.0.0.1:{ports.simulator}/ledger/summary",
        }
        sample = Sample(manage, base, Simulator(ports.simulator, ports.smtp), secrets)
        api = sample.prepare()
        self._screen.say(f"sending {self._options.messages} sample messages")
        with self._screen.progress() as watch:
            outcome = sample.run(api, self._options.messages, watch)
        self._screen.summary(outcome)
        self._screen.places(urls, _logins(secrets))
        if self._options.json:
            print(json.dumps({**asdict(outcome), "urls": urls}), flush=True)
        if self._options.once:
            return 0 if outcome.balanced else 1
        self._screen.say("everything runs; Ctrl-C stops it")
        while True:
            signal.pause()


def _logins(secrets: Secrets) -> dict[str, str]:
    return {
        "admin": f"admin / {secrets['ADMIN_PASSWORD']}",
        "api": f"API key {secrets['DEMO_API_KEY']}",
        "flower": f"admin / {secrets['FLOWER_PASSWORD']}",
    }


def _place(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or parts.path}{port}"


if __name__ == "__main__":
    sys.exit(main())
