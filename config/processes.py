"""The processes of Chaski: one list, one command each. Read by `bin/up`, by the fault tests, and compared
with the Compose file by a test.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from signal import Signals

QUEUES = "urgent,normal,bulk,control"
#: Urgent messages have a process of their own, for in one that drains a backlog they would wait for the interpreter.
LIGHT, HEAVY = "urgent,control", "normal,bulk"
MODULES = ("gunicorn", "celery")  # commands that are also modules of the same interpreter


@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``command`` is as people type it.

    On the way down everything of ``stage`` 0 is asked to end first, then 1, then 2; what has not ended after
    ``grace_seconds`` is killed. ``on_parent_death`` is what the kernel sends it when the supervisor is
    killed: the work is safe in the database whenever a process dies, so the default spares nobody.
    """

    name: str
    command: tuple[str, ...]
    stage: int = 0
    grace_seconds: float = 10.0
    on_parent_death: Signals = Signals.SIGKILL

    @property
    def arguments(self) -> list[str]:
        """The command with the running interpreter: scripts in a folder with spaces may not run by
        themselves.
        """
        program, *rest = self.command
        if program in MODULES:
            return [sys.executable, "-m", program, *rest]
        return [sys.executable, *rest] if program == "python" else [program, *rest]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the processes listen on 127.0.0.1."""

    web: int
    flower: int
    simulator: int
    smtp: int


def web(bind: str) -> Process:
    """The API, the admin, the receipts. gunicorn has children, so it is asked: SIGQUIT ends all at once."""
    server = ("gunicorn", "config.wsgi:application", "--bind", bind, "--worker-class", "gthread")
    size = ("--workers", "2", "--threads", "8")
    # Its control socket is one per user, so that two systems of one user would share it.
    manners = ("--timeout", "60", "--graceful-timeout", "10", "--no-control-socket", "--log-level", "warning")
    return Process("web", (*server, *size, *manners), grace_seconds=15, on_parent_death=Signals.SIGQUIT)


def worker(number: int, queues: str = QUEUES) -> Process:
    """One delivery process; one per core is right. It finishes what is in flight before it ends.

    ``queues`` are the queues it takes bells and tasks from, comma-separated.
    """
    pool = ("--pool", "threads", "--concurrency", "32", "-Q", queues)
    name = ("--hostname", f"worker{number}@%h")
    quiet = ("-E", "--loglevel", "WARNING", "--without-gossip", "--without-mingle")
    command = ("celery", "-q", "-A", "config", "worker", *pool, *name, *quiet)
    return Process(f"worker{number}", command, stage=1, grace_seconds=20)


def workers(count: int) -> list[Process]:
    """``count`` processes for the bulk of the work, and a light one beside them."""
    return [*(worker(number, HEAVY) for number in range(1, count + 1)), worker(count + 1, LIGHT)]


def relay() -> Process:
    """Rings for what is due and nobody takes."""
    return Process("relay", ("python", "manage.py", "relay"))


def beat(schedule: str = ".chaski/beat-schedule") -> Process:
    """The clock of the periodic tasks; ``schedule`` is the file it remembers its last runs in."""
    return Process("beat", ("celery", "-q", "-A", "config", "beat", "-s", schedule, "--loglevel", "WARNING"))


def flower(port: int, address: str = "127.0.0.1") -> Process:
    """Celery's monitor. Its login comes from FLOWER_BASIC_AUTH, as a command line can be seen by every user.

    Start it last: it asks the workers once about themselves, and shows little of those that did not answer.
    """
    where = (f"--address={address}", f"--port={port}")
    return Process("flower", ("celery", "-A", "config", "flower", *where, "--max_tasks=20000"))


def simulator(port: int, smtp_port: int) -> Process:
    """The providers, played. It ends last: the workers' last messages still reach it."""
    command = ("python", "manage.py", "simulator", "--port", str(port), "--smtp-port", str(smtp_port))
    return Process("simulator", command, stage=2)


def smpp(listen: str) -> Process:
    """The connections of SMPP accounts, for those who have one: `bin/up` does not start it. It finishes what is under way."""
    return Process("smpp", ("python", "manage.py", "smpp", "--listen", listen), stage=2, grace_seconds=30)


def everything(ports: Ports, *, heavy_workers: int = 2) -> list[Process]:
    """All processes of one machine, in the order in which to start them."""
    return [
        simulator(ports.simulator, ports.smtp),
        web(f"127.0.0.1:{ports.web}"),
        *workers(heavy_workers),
        relay(),
        beat(),
        flower(ports.flower),
    ]
