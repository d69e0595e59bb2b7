"""A whole Chaski of its own for tests: servers, processes, simulator, all real and all killable.

Used by the fixtures of this folder. Every duration is a tenth of the usual one (CHASKI_TIME_SCALE), so a lease of a
vanished worker ends after six seconds.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import psycopg
import redis

import chaski
from chaski.identifiers import uuid7
from config import local, processes
from config.embedded import EmbeddedPostgres, EmbeddedValkey
from config.environment import Secrets
from config.ports import any_free
from config.processes import Ports, Process
from config.supervisor import Supervisor
from deliveries.cache import redis_url
from tests.processes.management import ForkingManagement

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
SCALE = 0.1
#: Workers know their pauses for half a second.
PAUSE_SECONDS = 0.6
#: The longest lease of an HTTP provider at this scale, two sweeps, and room for a loaded machine.
RECOVERY_SECONDS = 60 * SCALE + 2 * 5 * SCALE + 20


def wait_for(condition: Callable[[], T], seconds: float = RECOVERY_SECONDS, what: str = "it") -> T:
    """The first true value of ``condition``. Fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:.0f} s"
        time.sleep(0.05)


class Told:
    """What clients were told after a 202: one fsynced JSON line per message, written by neither Chaski nor its database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def since(self, place: int) -> tuple[set[str], int]:
        """The ids that were noted behind ``place`` (0: the beginning), and the place behind them."""
        with self._lock:
            if not self.path.exists():
                return set(), 0
            with self.path.open("rb") as file:
                file.seek(place)
                return {json.loads(line)["id"] for line in file}, file.tell()

    def note(self, service: str, ids: Iterable[str]) -> None:
        """Keep ``ids`` of ``service``; returns once they are on disk."""
        lines = "".join(json.dumps({"id": message_id, "service": service}) + "\n" for message_id in ids)
        with self._lock, self.path.open("a") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


class System:
    """Started by ``with``; ``home`` is an empty folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = Ports(*(any_free() for _ in range(4)))
        self.postgres, self.valkey = self._servers()
        self.accepts = home / "simulator.jsonl"
        self.told = Told(home / "told.jsonl")
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self.postgres)
            self._stack.enter_context(self.valkey)
            self.environment = self._variables()
            self.manage = self._stack.enter_context(ForkingManagement(ROOT, self.environment))
            self.manage.run("migrate", "--noinput")
            self.supervisor = Supervisor(
                self.environment,
                folder=ROOT,
                logs=self.home / "log",
                show=self._show,
            )
            self._stack.enter_context(self.supervisor)
            for process in self.processes():
                self.supervisor.start(process)
            local.wait_until_ready(f"{self.url}/health/ready")
            assert local.wait_for_workers(self.environment["CHASKI_BROKER_URL"], 2) == 2, self.log()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _servers(self) -> tuple[EmbeddedPostgres, EmbeddedValkey]:
        """The database and the broker, not started."""
        log = self.home / "log"
        postgres = EmbeddedPostgres(self.home / "postgres", log=log / "postgres.log")
        return postgres, EmbeddedValkey(self.home / "valkey", log=log / "valkey.log")

    def _addresses(self) -> dict[str, str]:
        """The variables that say where both are."""
        return {
            "DATABASE_URL": self.postgres.url,
            "CHASKI_BROKER_URL": self.valkey.url,
            "CHASKI_CACHE_URL": self.valkey.cache_url,
        }

    @property
    def url(self) -> str:
        """Where the web process answers."""
        return f"http://127.0.0.1:{self.ports.web}"

    @property
    def vendor_url(self) -> str:
        """Where the accounts find their vendors."""
        return f"http://127.0.0.1:{self.ports.simulator}"

    def processes(self) -> list[Process]:
        """What runs: as `bin/up`, without beat and Flower, with a simulator whose hangs are short."""
        simulator = processes.simulator(self.ports.simulator, self.ports.smtp)
        command = (*simulator.command, "--ledger", str(self.accepts), "--hang", "4")
        return [
            Process(simulator.name, command, simulator.stage),
            processes.web(f"127.0.0.1:{self.ports.web}"),
            processes.worker(1),
            processes.worker(2),
            processes.relay(),
        ]

    def _variables(self) -> dict[str, str]:
        secrets = Secrets(self.home / "secrets")
        values = local.variables([self.postgres, self.valkey], self.ports, secrets)
        given = local.for_children({**values, **self._addresses(), "CHASKI_PUBLIC_URL": self.url})
        given |= {"CHASKI_SPILL": str(self.home / "spill"), "CHASKI_WITNESS": str(self.home / "witness")}
        return given | {"CHASKI_ENV": "test", "CHASKI_TIME_SCALE": str(SCALE)}

    def _show(self, name: str, line: str) -> None:
        with self._lock:
            self.lines.append(f"{name}: {line}")

    def log(self, last: int = 60) -> str:
        """The last lines of all processes, for the text of a failure."""
        with self._lock:
            return "\n".join(self.lines[-last:])

    # -- what tests do to it; a server that they stop or kill they start again

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the process ``name`` alone, by its pid; the supervisor starts a dead one again. Returns the pid."""
        pid = self.supervisor.children[name].popen.pid
        os.kill(pid, number)
        return pid

    def restarted(self, name: str, pid: int) -> None:
        """Wait until ``name`` runs as another process than ``pid``."""
        child = self.supervisor.children[name]
        wait_for(lambda: child.running and child.popen.pid != pid, 20, f"the restart of {name}")

    def pause(self, service: str) -> None:
        """`manage.py pause --service`, and until every worker knows."""
        self.manage.run("pause", "--service", service)
        time.sleep(PAUSE_SECONDS)

    def broker(self) -> redis.Redis:
        """A client of the broker itself."""
        return redis.Redis.from_url(redis_url(self.valkey.url))

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Rows straight from the database."""
        with psycopg.connect(self.postgres.socket_url) as connection:
            return connection.execute(sql, parameters).fetchall()

    # -- what tests see of it

    def new_service(self, *accounts: tuple[str, ...]) -> Tenant:
        """A service with accounts of its own, each ``(channel, provider, option=value...)``."""
        name = f"s{uuid4().hex[:10]}"
        made = self.manage.run("service", "create", name, "--json").document
        for channel, provider, *options in accounts:
            given = [word for option in options for word in ("--option", option)]
            account = f"{channel}-{name}"
            self.manage.run("account", "create", channel, provider, account, "--service", name, *given, "--json")
        client = chaski.Client(url=self.url, api_key=made["api_key"], timeout=(2, 20))
        return Tenant(self, name, made["id"], made["api_key"], client)

    def twilio(self) -> tuple[str, ...]:
        """An SMS account at the simulator."""
        base = f"base_url={self.vendor_url}/twilio"
        return ("sms", "twilio", base, f"account_sid=AC{'0' * 32}", "from_number=+15005550006", "auth_token=simulated")

    def webhook(self) -> tuple[str, ...]:
        """A webhook account whose requests all go to the simulator."""
        base = f"base_url={self.vendor_url}/webhook"
        return ("webhook", "webhook", base, f"secret={Secrets(self.home / 'secrets')['WEBHOOK_SECRET']}")

    def accepted(self, *ids: str) -> Counter[str]:
        """How often the simulator accepted each of ``ids``, by its own fsynced ledger."""
        wanted = set(ids)
        lines = self.accepts.read_text().splitlines() if self.accepts.exists() else []
        found = (json.loads(line)["message_id"] for line in lines)
        return Counter(message_id for message_id in found if message_id in wanted)

    def must_balance(self) -> None:
        """Wait until `manage.py ledger` finds nothing wrong; fails with what it finds."""
        try:
            wait_for(lambda: self.ledger()["balanced"], 10, "a balanced ledger")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.ledger()}\n{self.log()}") from error

    def ledger(self) -> dict[str, Any]:
        """`manage.py ledger --json`, balanced or not."""
        document: dict[str, Any] = self.manage.run("ledger", "--json", codes=(0, 1)).document
        return document


class Tenant:
    """One service of the system and its messages."""

    def __init__(self, system: System, name: str, service_id: int, key: str, client: chaski.Client) -> None:
        self.system = system
        self.name = name
        self.id = service_id
        self.key = key
        self.client = client

    def send(self, channel: str, to: str, **fields: Any) -> chaski.Message:
        """Send one."""
        message = self.client.send(channel, to, **{"text": "Tu pedido va en camino", **fields})
        self.system.told.note(self.name, [str(message.id)])
        return message

    def send_many(self, count: int, channel: str = "sms", **fields: Any) -> list[str]:
        """Send ``count`` to ordinary recipients; their ids."""
        return self.send_ids([str(uuid7()) for _ in range(count)], channel, **fields)

    def send_ids(self, ids: list[str], channel: str = "sms", *, keys: int = 0, **fields: Any) -> list[str]:
        """Send one message for each of ``ids``, in turn with one of ``keys`` ordering keys; may be repeated."""
        to = {"sms": "+5691{:07}", "webhook": "https://shop.example/hooks/{}"}[channel]
        rows = [{"channel": channel, "to": to.format(n), "text": f"no. {n}", **fields} for n in range(len(ids))]
        for number, row in enumerate(rows):
            row |= {"ordering_key": f"key-{number % keys}"} if keys else {}
        result = self.client.send_many([{"key": id_, **row, "id": id_} for row, id_ in zip(rows, ids, strict=True)])
        assert not result.rejected, result.rejected
        self.system.told.note(self.name, ids)
        return ids

    def under_way(self) -> int:
        """Calls that have begun and are not recorded."""
        sql = (
            "SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id"
            " WHERE m.service_id = %s AND a.begun_at IS NOT NULL AND a.finished_at IS NULL"
        )
        return int(self.system.query(sql, self.id)[0][0])

    def attempts(self, message_id: str) -> list[Any]:
        """(number, outcome, code, begun_at, finished_at) of a message's attempts."""
        sql = "SELECT number, outcome, code, begun_at, finished_at FROM attempt WHERE message_id = %s ORDER BY number"
        return self.system.query(sql, message_id)

    def doubts(self) -> dict[str, int]:
        """Message id -> how often it was in doubt."""
        found = self.system.query("SELECT id::text, in_doubt_count FROM message WHERE service_id = %s", self.id)
        return dict(found)

    def statuses(self) -> Mapping[str, int]:
        """How many messages have which status, callbacks apart."""
        sql = "SELECT status, count(*) FROM message WHERE service_id = %s AND origin <> 'callback' GROUP BY status"
        return dict(self.system.query(sql, self.id))

    def settled(self, seconds: float = RECOVERY_SECONDS) -> Mapping[str, int]:
        """Wait until none waits or is under way; the statuses then."""
        unfinished = "SELECT count(*) FROM pending WHERE service_id = %s AND NOT blocked"
        try:
            wait_for(lambda: self.system.query(unfinished, self.id)[0][0] == 0, seconds, "the end of every message")
        except AssertionError as error:
            raise AssertionError(f"{error}; statuses {self.statuses()}\n{self.system.log()}") from error
        return self.statuses()
