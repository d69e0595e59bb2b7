"""Builds of Chaski that are broken on purpose, and what each of them and the sound one goes through.

Used by ``test_broken_builds.py``: the ledger must find fault with every broken build, and none with the sound one after the
same. Only the processes under test are broken; the ledger is asked from the code as it is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from config.processes import Process
from deliveries.ledger import CHECKS
from tests.faults.system import RELAYS, WORKERS, FaultSystem
from tests.faults.tenants import tenant
from tests.faults.watching import LEASE_SECONDS, NOISE_SECONDS, RECOVERY_SECONDS, all_sent, bells
from tests.processes.system import Tenant, wait_for

FOLDER = Path(__file__).parent / "broken"
#: The ledger's own patience with the sweep, two sweeps and five seconds; then it has nothing to wait for any more.
PATIENCE_SECONDS = RECOVERY_SECONDS - LEASE_SECONDS + 5
HOOK = "https://shop.example/hooks/"
#: Everybody who writes PostgreSQL's log to the disk without having been asked by a COMMIT.
FLUSHERS = "('walwriter', 'background writer', 'checkpointer', 'autovacuum launcher')"


class BuiltSystem(FaultSystem):
    """A system whose web process, workers and relay are of ``build``, a folder beside; of the code as it is when empty.

    One relay is enough here, and nothing periodic is waited for.
    """

    def __init__(self, home: Path, build: str = "") -> None:
        super().__init__(home)
        self.build = build

    def processes(self) -> list[Process]:
        """The simulator is always sound: its book is the evidence."""
        wanted = [process for process in super().processes() if process.name not in (RELAYS[1], "beat")]
        return [process if process.name == "simulator" else self._of_build(process) for process in wanted]

    def _of_build(self, process: Process) -> Process:
        return replace(process, command=("env", f"PYTHONPATH={search_path(self.build)}", *process.arguments))

    def shop(self) -> Tenant:
        """A service whose vendors are all played by the simulator. Its webhooks bring no receipts."""
        return tenant(self, self.twilio(), self.webhook())

    def go_through(self, scenario: Scenario) -> None:
        """One scenario, with a service of its own."""
        for file in self.crashes.iterdir():
            file.unlink()
        try:
            scenario(self, self.shop())
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(200)}") from error

    def found(self) -> dict[str, set[str]]:
        """What `manage.py ledger` finds with both outside books: the ids under the words of each check that speaks up."""
        files = ("--told", str(self.told.path), "--accepted", str(self.accepts))
        document = self.manage.run("ledger", *files, "--json", codes=(0, 1)).document
        assert document["balanced"] == (not document["violations"]), document
        found: dict[str, set[str]] = {}
        for violation in document["violations"]:
            (words,) = (check.wrong for check in CHECKS if violation["detail"].startswith(f"{check.wrong}: "))
            found.setdefault(words, set()).add(violation["message_id"])
        return found

    def unfinished(self) -> set[str]:
        """The messages that still wait or are under way."""
        return {id_ for (id_,) in self.query("SELECT message_id::text FROM pending")}


def search_path(build: str) -> str:
    """PYTHONPATH of a process of ``build``; empty for the code as it is."""
    return f"{FOLDER / build}:{FOLDER}" if build else ""


@dataclass(frozen=True, slots=True)
class Build:
    """A folder of ``broken``, what it goes through, and the words that the ledger must find for it at least."""

    scenario: Scenario
    words: frozenset[str]


Scenario = Callable[[BuiltSystem, Tenant], None]


def workers_are_killed(system: BuiltSystem, shop: Tenant) -> None:
    """kill -9 of a worker that has claimed, of one in its calls; a bell that is lost with the broker while both are down."""
    for point in ("after_claim", "in_send"):
        system.crash_at(point)
        shop.send_many(5, "webhook")
        (pid,) = system.crashed(point)
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10, "the end of the process")  # type: ignore[misc]
    with system.without(*WORKERS):
        shop.send("sms", "+56912345678", expires_at=datetime.now(UTC) + timedelta(seconds=2))
        wait_for(lambda: bells(system), 10, "the bell")
        with system.queues() as broker:
            broker.flushall()
    come_to_rest(system, shop)


def a_worker_wakes_after_its_lease(system: BuiltSystem, shop: Tenant) -> None:
    """A worker freezes with a refusal that it has not recorded, and wakes when another worker holds the message.

    That one freezes in turn, with an acceptance that it has not looked at, until somebody has recorded one.
    """
    with ExitStack() as frozen:
        system.crash_at("before_record", number=signal.SIGSTOP)
        message = shop.send("webhook", "https://example.com/fault/throttle")
        first = stopped_at("before_record", system, frozen)
        system.crash_at("after_answer", number=signal.SIGSTOP)
        stopped_at("after_answer", system, frozen)
        os.kill(first, signal.SIGCONT)
        all_sent(system, [str(message.id)])
    wait_for(lambda: all(finished for *_, finished in shop.attempts(str(message.id))), 10, "the end of all attempts")


def stopped_at(point: str, system: BuiltSystem, until: ExitStack) -> int:
    """The worker that stops at ``point``, to go on at the end of the block; its pid."""
    (pid,) = system.crashed(point)
    until.callback(go_on, pid)
    return pid


def the_database_is_killed(system: BuiltSystem, shop: Tenant) -> None:
    """kill -9 of all of PostgreSQL after some 202s, at a moment at which nobody has flushed its log but for a COMMIT."""
    shop.send_many(20)
    come_to_rest(system, shop)
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # the service itself is not what is lost
        flushers = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE backend_type IN {FLUSHERS}").fetchall()
    with ExitStack() as flushing:
        for (pid,) in flushers:
            os.kill(pid, signal.SIGSTOP)
            flushing.callback(go_on, pid)
        shop.send_many(20)
        for number in range(10):
            shop.send("webhook", f"{HOOK}{number}")
        kill_whole_database(system)
    system.postgres.start()
    come_to_rest(system, shop)


def go_on(pid: int) -> None:
    """Wake a process that may have been killed meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def kill_whole_database(system: BuiltSystem) -> None:
    """The server and all its children in one moment, each of which leads a session of its own."""
    server = system.postgres.process.pid
    os.kill(server, signal.SIGSTOP)  # it would end the others in order
    for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    system.postgres.kill()


def messages_are_sent(system: BuiltSystem, shop: Tenant) -> None:
    """Nothing goes wrong at all."""
    shop.send_many(10, "webhook")
    come_to_rest(system, shop)


def come_to_rest(system: BuiltSystem, shop: Tenant) -> None:
    """Until no message waits or is under way; of a broken build, which may never rest, until the ledger's patience is over."""
    with suppress(AssertionError) if system.build else nullcontext():
        shop.settled(RECOVERY_SECONDS + PATIENCE_SECONDS + (NOISE_SECONDS if system.build else 20))


#: By the name of their folder.
BUILDS: Mapping[str, Build] = {
    "acked_early": Build(
        workers_are_killed,
        frozenset({"has a lease that ends too late, or ended long ago", "waits beyond its deadline"}),
    ),
    "unfenced": Build(
        a_worker_wakes_after_its_lease, frozenset({"was tried again after it was accepted, and nobody put it back"})
    ),
    "asynchronous": Build(the_database_is_killed, frozenset({"was told to a client, and does not exist"})),
    "unlived": Build(messages_are_sent, frozenset({"its events have a gap, or do not end where it is"})),
}
