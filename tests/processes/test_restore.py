"""A database restored from a backup starts held, by a copy of its files and by a dump; real servers, workers and relay."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

import chaski
from config.embedded.postgres import binaries
from tests.faults.evidence import Evidence
from tests.processes.system import System, Tenant, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.faults, pytest.mark.thorough]

HELD = "starts held; nothing goes out before an operator arms it"


class Witnessed(System):
    """A system whose witness file is its own."""

    @property
    def witness(self) -> Path:
        return self.home / "witness"

    def senders(self) -> list[str]:
        """The names of the workers and the relay."""
        return [process.name for process in self.processes() if process.name.startswith(("worker", "relay"))]

    def ready(self) -> Any:
        """What the health check answers, whatever the status."""
        answer = urllib3.request("GET", f"{self.url}/health/ready", retries=False, timeout=5)
        return answer.status, answer.json()

    def count(self) -> int:
        """How far the lineage has come."""
        return int(self.query("SELECT counter FROM lineage")[0][0])

    def comes_true(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """``wait_for``, which says on failure how the lineage stands and what the processes said."""
        try:
            wait_for(condition, seconds, what)
        except AssertionError as error:
            held = self.query("SELECT counter, held_reason FROM lineage")
            raise AssertionError(f"{error}; lineage {held}\n{self.log(200)}") from error

    def looked_since(self, at: datetime) -> bool:
        """Has each worker and relay beaten since ``at``, which it does after a look?"""
        seen = self.query("SELECT count(*) FROM heartbeat WHERE kind IN ('worker', 'relay') AND seen_at > %s", at)
        return int(seen[0][0]) >= 3


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Witnessed]:
    with Witnessed(tmp_path) as running:
        yield running


def scheduled(tenant: Tenant, seconds: float) -> list[str]:
    """Three messages that are due in ``seconds``: a backup made until then has them waiting."""
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    return [tenant.send("sms", f"+5691234567{n}", send_at=due).id for n in range(3)]


def sent_once(system: Witnessed, ids: list[str]) -> None:
    wait_for(lambda: len(system.accepted(*ids)) == 3, 40, "the send after the backup")
    before = system.count()
    wait_for(lambda: system.count() > before + 1, 30, "a sign of life after that")


def is_held_and_armed(system: Witnessed, tenant: Tenant, ids: list[str]) -> None:
    """Nothing goes out, acceptance goes on, an operator sees what would go and decides."""
    restored_at = datetime.now(UTC)
    wait_for(lambda: system.looked_since(restored_at), 60, "a look of each worker and relay")
    wait_for(lambda: system.ready()[1]["status"] == "degraded", 20, "the hold")
    assert system.ready()[0] == 200
    meanwhile = accepted_at_last(tenant)
    doctor = system.manage.run("doctor", "--json", codes=(1, 3)).document
    assert [f["level"] for f in doctor["findings"] if f["check"] == "restored"] == ["degraded"]
    shown = system.manage.run("arm", "--json").document
    assert shown["held"]
    assert [(g["before"], g["messages"], g["begun"]) for g in shown["unfinished"]] == [(True, 3, 0), (False, 1, 0)]
    assert set(system.accepted(*ids).values()) == {1}, "nothing went out again by itself"
    assert not system.accepted(meanwhile)
    system.manage.run("arm", "--before", "hold", "--reason", "restored in a test")
    wait_for(lambda: system.accepted(meanwhile), what="the message that was accepted while it was held")
    assert {tenant.client.get(message_id).status for message_id in ids} == {"in_doubt"}
    assert set(system.accepted(*ids).values()) == {1}
    assert system.ready()[1] == {"status": "ready"}
    system.must_balance()


def accepted_at_last(tenant: Tenant) -> str:
    """A 202 while it is held; the web process may still meet the connections of the server before."""

    def send() -> str:
        try:
            return tenant.send("sms", "+56912345699").id
        except chaski.ChaskiError:
            return ""

    return wait_for(send, 20, "a 202")


@pytest.mark.row("D1", "yesterday's files under running processes", HELD)
def test_yesterdays_files_under_running_processes_are_held(system: Witnessed, tmp_path: Path, seen: Evidence) -> None:
    tenant = system.new_service(system.twilio())
    ids = scheduled(tenant, 15)
    copy = tmp_path / "yesterday"
    system.postgres.stop()
    shutil.copytree(system.postgres.data, copy)
    system.postgres.start()
    sent_once(system, ids)
    system.postgres.stop()
    shutil.rmtree(system.postgres.data)
    shutil.copytree(copy, system.postgres.data)
    system.postgres.start()
    is_held_and_armed(system, tenant, ids)
    seen(
        "3 messages that were sent after the backup: none again, in doubt once armed; one accepted meanwhile: sent then"
    )


@pytest.mark.row("D1", "yesterday's dump in a new cluster, Valkey emptied, the witness file lost", HELD)
def test_a_dump_in_a_new_cluster_is_held_though_every_witness_is_gone(
    system: Witnessed, tmp_path: Path, seen: Evidence
) -> None:
    tenant = system.new_service(system.twilio())
    ids = scheduled(tenant, 15)
    dump = tmp_path / "chaski.dump"
    tool("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={system.postgres.socket_url}")
    sent_once(system, ids)
    for name in system.senders():
        system.supervisor.end(name)
    system.postgres.drop()
    system.postgres.start()
    tool("pg_restore", "--single-transaction", f"--dbname={system.postgres.socket_url}", str(dump))
    system.broker().flushall()
    assert json.loads(system.witness.read_text()), "it was kept"
    system.witness.unlink()
    for process in system.processes():
        if process.name in system.senders():
            system.supervisor.start(process)
    is_held_and_armed(system, tenant, ids)
    seen(
        "3 messages that were sent after the backup: none again, in doubt once armed; one accepted meanwhile: sent then"
    )


@pytest.mark.row("D1", "no restore: PostgreSQL, Valkey and all senders killed and started", "not held")
def test_an_ordinary_restart_of_everything_is_not_held(system: Witnessed, seen: Evidence) -> None:
    tenant = system.new_service(system.twilio())
    before = system.count()
    system.comes_true(lambda: system.count() > before, 30, "a sign of life")
    system.postgres.kill()
    system.valkey.kill()
    pids = {name: system.kill(name) for name in system.senders()}
    system.postgres.start()
    system.valkey.start()
    for name, pid in pids.items():
        system.restarted(name, pid)
    message_id = accepted_at_last(tenant)
    system.comes_true(lambda: system.accepted(message_id), 60, "the send")
    assert system.ready() == (200, {"status": "ready"})
    seen("a message sent, ready")


def tool(name: str, *arguments: str) -> None:
    done = subprocess.run([binaries() / name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
