"""`ledger` names broken rows; `doctor` says what is missing; both answer by their exit code, as a process too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.db import connection

from chaski.vocabulary import Status
from config.ports import any_free
from deliveries import acts, diagnosis
from deliveries.models import Account, Heartbeat, Message, Pause, Pending, PeriodicSlot
from tests.api.calls import Api, move
from tests.api.server import database_url
from tests.commands.shell import refused, run, same_shape
from tests.deliveries import broken_rows, steps
from tests.factories import make_account, make_caller

ROOT = Path(__file__).parents[2]


@pytest.fixture
def api(transactional_db: None) -> Api:
    shop = make_caller("shop")
    make_account("sms", service=shop.service)
    return Api(shop)


def example(name: str) -> Any:
    return load_command_class("deliveries", name).examples[""]  # type: ignore[attr-defined]


def test_a_ledger_that_balances_exits_with_0_and_counts_every_side(api: Api) -> None:
    service = api.caller.service
    broken_rows.waiting(service)
    broken_rows.sent(service)
    broken_rows.in_doubt(service)
    (again,) = broken_rows.failed(service)
    acts.redeliver(steps.message(again), actor="somebody")
    move(str(again), Status.CANCELED)
    said = run("ledger", "--json")
    assert (said.code, said.json) == (
        0,
        {
            "balanced": True,
            "accepted": 4,
            "final": 1,
            "handed_over": 1,
            "waiting": 1,
            "in_flight": 0,
            "in_doubt": 1,
            "redelivered": 1,
            "violations": [],
        },
    )
    assert set(example("ledger")) == set(said.json)
    told = run("ledger", "--since", "1h")
    assert (told.code, told.out) == (0, "")
    assert "4 accepted = 1 final + 1 handed over + 1 waiting + 0 in flight + 1 in doubt; 1 redelivered" in told.err


def test_a_broken_row_is_named_with_its_invariant(api: Api) -> None:
    message_id = api.send()["id"]
    Pending.objects.all().delete()
    said = run("ledger", "--json")
    assert (said.code, said.json["balanced"]) == (1, False)
    assert same_shape(example("ledger"), said.json)
    named = {"invariant": 1, "message_id": message_id, "detail": "waits, and is in no queue: queued"}
    assert said.json["violations"] == [named]
    told = run("ledger")
    assert told.code == 1
    assert message_id in told.err
    assert "THE LEDGER DOES NOT BALANCE" in told.err


@pytest.mark.parametrize("kind", ["told", "accepted", "received"])
def test_what_others_kept_is_compared_when_it_is_given(api: Api, kind: str, tmp_path: Path) -> None:
    nobody = "01980000-0000-7000-8000-000000000000"
    line = {"id": nobody, "message_id": nobody, "sequence": 2, "time": "2030-01-31T12:00:00Z", "provider": "sandbox"}
    path = tmp_path / "lines"
    path.write_text(json.dumps({**line, "recipient": "r", "provider_message_id": ""}) + "\n")
    assert api.send()["id"]
    said = run("ledger", f"--{kind}", str(path), "--json")
    assert (said.code, [v["message_id"] for v in said.json["violations"]]) == (1, [nobody])
    refused(run("ledger", f"--{kind}", f"{path}-elsewhere"), f"--{kind}", "No such file")
    assert run("ledger").code == 0, "nothing of it is left behind"


def test_a_ledger_of_no_time_is_refused(db: None) -> None:
    refused(run("ledger", "--since", "yesterday"), "--since", "90s, 5m, 1h or 7d")


def alive(*kinds: str, queues: str = "urgent,normal,bulk,control") -> None:
    with connection.cursor() as cursor:
        for kind in kinds:
            cursor.execute(
                "INSERT INTO heartbeat (name, kind, seen_at, claimed_at, queues)"
                " VALUES (%s, %s, chaski_now(), chaski_now(), %s)",
                [kind, kind, queues if kind == "worker" else ""],
            )
        cursor.execute("INSERT INTO periodic_slot (job, slot) VALUES ('minute', chaski_now())")


def levels(said: Any) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in said.json["findings"]}


def test_where_everything_runs_doctor_exits_with_0(db: None) -> None:
    alive("worker", "relay")
    said = run("doctor", "--json")
    assert same_shape(example("doctor"), said.json)
    assert (said.code, said.json["status"]) == (0, "ok"), said.out
    wanted = {"settings", "database", "broker", "worker", "relay", "beat", "queue", "queue urgent", "clock", "accounts"}
    assert wanted <= set(levels(said))
    assert all(not finding["fix"] for finding in said.json["findings"])


def test_what_still_works_badly_makes_it_exit_with_3_and_says_the_fix(db: None) -> None:
    alive("worker", "relay")
    PeriodicSlot.objects.all().delete()
    make_account("sms", name="stopped", stopped_at="2026-01-01T00:00:00Z", stopped_reason="401")
    make_account("sms", name="sealed-elsewhere")
    Account.objects.filter(name="sealed-elsewhere").update(secrets=b"rubbish")
    Pause.objects.create(scope="all")
    said = run("doctor", "--json")
    assert (said.code, said.json["status"]) == (3, "degraded")
    bad = [finding for finding in said.json["findings"] if finding["level"] == "degraded"]
    assert {finding["check"] for finding in bad} == {"beat", "account", "pauses"}
    assert all(finding["fix"] for finding in bad)
    assert "manage.py resume --account stopped" in run("doctor").err


def test_without_workers_or_relay_it_exits_with_1_and_says_how_to_start_them(db: None) -> None:
    said = run("doctor", "--json")
    assert (said.code, said.json["status"]) == (1, "broken")
    assert {name for name, level in levels(said).items() if level == "broken"} == {"worker", "relay"}
    Heartbeat.objects.create(name="old", kind="worker", seen_at="2026-01-01T00:00:00Z")
    told = run("doctor").err
    assert "celery -A config worker" in told
    assert "manage.py relay" in told


def test_a_queue_that_no_worker_takes_from_is_named(db: None) -> None:
    alive("worker", "relay", queues="urgent,normal,control")
    said = run("doctor", "--json")
    broken = {finding["check"]: finding["fix"] for finding in said.json["findings"] if finding["level"] == "broken"}
    assert said.code == 1
    assert list(broken) == ["queue bulk"]
    assert "-Q bulk" in broken["queue bulk"]


def test_a_broker_that_is_away_is_broken_and_nothing_more_is(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    alive("worker", "relay")

    def depth(*_: object) -> int:
        raise ConnectionRefusedError

    monkeypatch.setattr(diagnosis.Publisher, "depth", depth)
    said = run("doctor", "--json")
    assert (said.code, [name for name, level in levels(said).items() if level != "ok"]) == (1, ["broker"])


def start(*arguments: str, database: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_as_processes_they_exit_as_they_say(api: Api) -> None:
    message_id = api.send()["id"]
    Message.objects.all().delete()
    nowhere = f"postgres://nobody@127.0.0.1:{any_free()}/nothing"
    with (
        start("ledger", database=database_url(str(connection.settings_dict["NAME"]))) as ledger,
        start("doctor", "--json", database=nowhere) as doctor,
        start("service", "create", "shop", "--json", database=nowhere) as service,
    ):
        said = ledger.communicate(timeout=60)[1]
        assert (ledger.returncode, message_id in said) == (1, True)
        shown = doctor.communicate(timeout=60)[0]
        assert (doctor.returncode, json.loads(shown)["status"]) == (1, "broken")
        shown, said = service.communicate(timeout=60)
        assert (service.returncode, shown, said.count("\n")) == (1, "", 1)
        assert said.startswith("CommandError: the database does not answer")
