"""What no worker can take is parked and seen, real workers say; nothing of it stops a worker or holds its queue up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contracts.released import RECORDED
from tests.contracts.wire import envelope, task
from tests.faults.evidence import Evidence
from tests.processes.system import System, Tenant, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shop(system: System) -> Tenant:
    """A service with an SMS account at the simulator."""
    return system.new_service(system.twilio())


@pytest.fixture(autouse=True)
def tidy(system: System) -> None:
    """What another test's outage left in the hands of a worker that is gone would come back after an hour."""
    broker = system.broker()
    broker.delete("unacked", "unacked_index")
    broker.close()


def put(system: System, *raws: Any, queue: str = "normal") -> None:
    """Leave ``raws`` on the broker as a publisher would, text as it is."""
    broker = system.broker()
    for raw in raws:
        broker.lpush(queue, raw if isinstance(raw, (str, bytes)) else json.dumps(raw))
    broker.close()


def parked(system: System, name: str) -> tuple[str, str, int, str] | None:
    """(reason, detail, times, payload) of what is parked under ``name``."""
    found = system.query("SELECT reason, detail, times, payload FROM parked WHERE name = %s ORDER BY id", name)
    return found[0] if found else None


def pids(system: System) -> list[int]:
    return [system.supervisor.children[name].popen.pid for name in ("worker1", "worker2")]


def emptied(system: System) -> None:
    """Wait until nothing lies on the broker or in the hands of a worker."""
    broker = system.broker()
    queues = ("urgent", "normal", "bulk", "control")
    wait_for(lambda: not sum(map(broker.llen, queues)) and not broker.hlen("unacked"), 20, "an empty broker")
    broker.close()


def test_what_released_publishers_left_on_the_broker_is_done(system: System) -> None:
    recorded = json.loads((RECORDED / "wire.json").read_text())
    raws = [json.loads(each["raw"]) for each in recorded]
    for each, raw in zip(recorded, raws, strict=True):
        raw["headers"]["expires"] = None  # the bells of that time are too old by now
        put(system, raw, queue=each["queue"])
    emptied(system)
    ids = [raw["headers"]["id"] for raw in raws]
    assert system.query("SELECT * FROM parked WHERE task_id = ANY(%s)", ids) == []
    kept = [raw["headers"]["id"] for raw in raws if raw["headers"]["ignore_result"] is False]
    sql = "SELECT count(*) FROM django_celery_results_taskresult WHERE task_id = ANY(%s) AND status = 'SUCCESS'"
    assert len(kept) >= 2, "bare bells keep what they did"
    wait_for(lambda: system.query(sql, kept)[0][0] == len(kept), 15, "their results")
    failed = "SELECT * FROM django_celery_results_taskresult WHERE task_id = ANY(%s) AND status = 'FAILURE'"
    assert system.query(failed, ids) == []


NOT_TAKEN = {
    "task.of.another.release": (task("task.of.another.release", 1, b=2), "unknown_task", ""),
    "deliver.fax": (task("deliver.fax", channel="fax", version=1), "unknown_task", ""),
    "deliver.sms": (task("deliver.sms", lane="normal"), "unfit_arguments", "channel"),
    "deliver.email": (task("deliver.email", "email"), "unfit_arguments", "positional"),
    "deliver.webhook": (envelope("deliver.webhook", b"{not json"), "unreadable", "DecodeError"),
    "deliver.slack": (envelope("deliver.slack", {"no": "call"}), "unreadable", ""),
    "deliver.line": (task("deliver.line", channel="line", version="two"), "unreadable", ""),
    "deliver.push": (
        {**envelope("deliver.push", b"cos\nsystem\n"), "content-type": "application/x-python-serialize"},
        "unreadable",
        "ContentDisallowed",
    ),
    "": (envelope(None, ["no", "task"]), "unreadable", "names no task"),
}


@pytest.mark.faults
@pytest.mark.row("F37", "unknown tasks, missing arguments, what cannot be read", "parked and seen; the queue moves on")
def test_what_no_worker_can_take_is_parked_and_the_queue_moves_on(system: System, shop: Tenant, seen: Evidence) -> None:
    before = pids(system)
    put(system, *(raw for raw, _, _ in NOT_TAKEN.values()))
    message = shop.send("sms", "+56912345678")
    for name, (_, reason, detail) in NOT_TAKEN.items():
        found = wait_for(lambda name=name: parked(system, name), 15, f"{name or 'the nameless one'} being parked")
        assert found[0] == reason, (name, found)
        assert detail in found[1], (name, found)
    shop.client.wait(message.id, until="sent", timeout=15)
    emptied(system)
    assert pids(system) == before, "no worker had to be restarted"
    seen(f"{len(NOT_TAKEN)} kinds parked, a message behind them sent, no worker restarted")


GARBAGE = (
    "not JSON",
    b"\xff\xfe",
    "[]",
    "{}",
    '{"properties": {}}',
    '{"body": "%", "properties": {"body_encoding": "base64"}}',
)


def test_what_is_no_task_at_all_ends_no_worker(system: System, shop: Tenant) -> None:
    before = pids(system)
    put(system, *GARBAGE)
    message = shop.send("sms", "+56912345678")
    sql = "SELECT count(*) FROM parked WHERE detail = 'it is no task at all' AND queue = 'normal'"
    wait_for(lambda: system.query(sql) == [(len(GARBAGE),)], 15, "all of it being parked")
    shop.client.wait(message.id, until="sent", timeout=15)
    emptied(system)
    assert pids(system) == before


def test_the_same_task_counts_on_one_row(system: System) -> None:
    put(system, *(task("repeated", n % 2) for n in range(40)))
    sql = "SELECT times FROM parked WHERE name = 'repeated' ORDER BY times"
    wait_for(lambda: sum(row[0] for row in system.query(sql)) == 40, 15, "forty of them")
    assert system.query(sql) == [(20,), (20,)]


def test_more_of_it_than_a_worker_may_hold_blocks_nothing(system: System, shop: Tenant) -> None:
    put(system, *(task("many", n) for n in range(300)))
    message = shop.send("sms", "+56912345678")
    shop.client.wait(message.id, until="sent", timeout=20)
    wait_for(lambda: system.query("SELECT sum(times) FROM parked WHERE name = 'many'") == [(300,)], 20, "all of them")
    emptied(system)


@pytest.mark.faults
@pytest.mark.row("F37", "a newer version, extra arguments", "noted; the channel is looked at")
@pytest.mark.parametrize(
    ("arguments", "reason", "detail"),
    [
        ({"version": 2, "lane": "express", "ids": {"of": "another form"}}, "unknown_version", "2, and 1 is known"),
        ({"version": 1, "lane": "normal", "shard": 7, "hint": "x"}, "extra_arguments", "hint, shard"),
    ],
)
def test_a_bell_of_a_newer_release_is_noted_and_its_channel_is_looked_at(
    system: System, arguments: dict[str, Any], reason: str, detail: str, seen: Evidence
) -> None:
    shop = system.new_service(system.twilio())
    pid = system.kill("relay", 19)  # SIGSTOP: nobody else rings
    try:
        message = held_back(system, shop)
        bell = task("deliver.sms", channel="sms", **arguments)
        put(system, bell)
        shop.client.wait(message, until="sent", timeout=15)
        assert system.query("SELECT task_id FROM attempt WHERE message_id = %s", message) == [(bell["headers"]["id"],)]
    finally:
        system.kill("relay", 18)
    assert system.supervisor.children["relay"].popen.pid == pid
    sql = "SELECT detail FROM parked WHERE name = 'deliver.sms' AND reason = %s"
    assert wait_for(lambda: system.query(sql, reason), 10, "the note") == [(detail,)]
    seen(f"noted as {reason}, the message sent by that bell")


def held_back(system: System, shop: Tenant) -> str:
    """A message that is due and for which nobody has rung: its own bell rang while it was paused."""
    system.pause(shop.name)
    message = str(shop.send("sms", "+56912345678").id)
    emptied(system)
    system.manage.run("resume", "--service", shop.name)
    return message


@pytest.mark.faults
@pytest.mark.row("F37", "an unknown task while the database is away", "kept on the broker until it is parked")
def test_while_the_database_is_away_it_stays_on_the_broker(system: System, seen: Evidence) -> None:
    before = pids(system)
    system.postgres.kill()
    try:
        put(system, task("kept.meanwhile"))
        broker = system.broker()
        wait_for(lambda: broker.hlen("unacked") + broker.llen("normal") > 0, 5, "it being held")
        wait_for(lambda: "tasks_not_parked" in system.log(300), 15, "the complaint")
        assert broker.hlen("unacked") + broker.llen("normal") > 0
        broker.close()
    finally:
        system.postgres.start()
    with seen.recovery():
        wait_for(lambda: parked(system, "kept.meanwhile"), 30, "it being parked")
    emptied(system)
    assert pids(system) == before
    seen("on the broker meanwhile, parked afterwards, no worker restarted")


def test_doctor_tells_and_a_task_that_is_known_by_now_is_published_again(system: System) -> None:
    name = "chaski.maintain"
    put(system, task(name, "an argument by position"))
    wait_for(lambda: parked(system, name), 15, "it being parked")
    findings = {
        each["check"]: each for each in system.manage.run("doctor", "--json", codes=(0, 1, 3)).document["findings"]
    }
    assert findings["parked"]["level"] == "degraded"
    rows = system.manage.run("parked", "list", "--json").document["parked"]
    row = next(row for row in rows if row["name"] == name)
    system.manage.run("parked", "replay", str(row["id"]), "--reason", "tried")
    again = wait_for(lambda: parked(system, name), 15, "it being parked once more: its arguments are what they were")
    assert again[0] == "unfit_arguments"
    newest = system.query("SELECT id FROM parked WHERE name = %s", name)[0][0]
    system.manage.run("parked", "discard", str(newest), "--reason", "tried")
    assert parked(system, name) is None
    acts = system.query("SELECT action FROM audit WHERE target LIKE 'parked:%%' ORDER BY id")
    assert acts == [("parked_publish",), ("parked_discard",)]
