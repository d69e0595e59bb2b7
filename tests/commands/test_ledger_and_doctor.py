"""`ledger` names every kind of broken row; `doctor` says what is missing; both answer by their exit code, as a process too."""

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
from deliveries import diagnosis
from deliveries.models import Account, Endpoint, Heartbeat, Message, Pause, PeriodicSlot
from tests.api.calls import Api, move
from tests.api.server import database_url
from tests.commands.shell import refused, run, same_shape
from tests.factories import make_account, make_caller

ROOT = Path(__file__).parents[2]

GONE = (
    "DELETE FROM pending WHERE message_id = %(id)s",
    "DELETE FROM event WHERE message_id = %(id)s",
    "DELETE FROM message WHERE id = %(id)s",
)
ATTEMPT = (
    "INSERT INTO attempt (message_id, number, token, account_id, worker, task_id, opened_at, finished_at, outcome, code, detail,"
    " provider_message_id) VALUES (%(id)s, {number}, gen_random_uuid(), 1, '', '', chaski_now() - interval '1 minute', {end},"
    " '{outcome}', '', '', '')"
)
NOW, OPEN = "chaski_now()", "NULL"
SENT = (
    "DELETE FROM pending WHERE message_id = %(id)s",
    "UPDATE message SET status = 'sent', event_sequence = 3 WHERE id = %(id)s",
    "INSERT INTO event (message_id, sequence, service_id, status, at, actor, reason) SELECT id, n, service_id,"
    " (ARRAY['', 'sending', 'sent'])[n], chaski_now(), '', '' FROM message, generate_series(2, 3) n WHERE id = %(id)s",
)

#: (invariant, words of its line, how a row is broken).
BREAKS: list[tuple[int, str, tuple[str, ...]]] = [
    (1, "accepted, and no message", GONE),
    (1, "waits, and is in no queue", ("DELETE FROM pending WHERE message_id = %(id)s",)),
    (1, "is in the queue, and done", ("UPDATE message SET status = 'failed' WHERE id = %(id)s",)),
    (2, "never accepted", ("DELETE FROM acceptance WHERE message_id = %(id)s",)),
    (2, "told to a client by its key, and no message", (*GONE, "DELETE FROM acceptance WHERE message_id = %(id)s")),
    (3, "its events have a gap", ("DELETE FROM event WHERE message_id = %(id)s",)),
    (
        3,
        "made a move that is not allowed: queued -> undelivered",
        (
            "INSERT INTO event (message_id, sequence, service_id, status, at, actor, reason) SELECT id, 2, service_id,"
            " 'undelivered', chaski_now(), '', '' FROM message WHERE id = %(id)s",
        ),
    ),
    (
        4,
        "is under a lease without an open attempt",
        (
            "UPDATE pending SET lease_until = chaski_now() + interval '1 s',"
            " lease_token = gen_random_uuid() WHERE message_id = %(id)s",
        ),
    ),
    (
        4,
        "has a lease that ends too late, or ended long ago",
        (
            "UPDATE pending SET lease_until = chaski_now() + interval '1 day',"
            " lease_token = gen_random_uuid() WHERE message_id = %(id)s",
        ),
    ),
    (4, "has an open attempt that no lease holds", (ATTEMPT.format(number=1, end=OPEN, outcome=""),)),
    (
        4,
        "has two attempts at once",
        (
            ATTEMPT.format(number=1, end=NOW, outcome="transient"),
            ATTEMPT.format(number=2, end=NOW, outcome="transient"),
        ),
    ),
    (5, "says sent, and no attempt, receipt or operator does", SENT),
    (
        6,
        "was accepted by providers more often than its doubts explain",
        (
            *SENT,
            ATTEMPT.format(number=1, end=NOW, outcome="accepted"),
            ATTEMPT.format(number=2, end=NOW, outcome="accepted"),
        ),
    ),
    (7, "counts its attempts wrongly", (ATTEMPT.format(number=3, end=NOW, outcome="transient"),)),
    (7, "crashed more workers than it may", ("UPDATE pending SET crash_count = 3 WHERE message_id = %(id)s",)),
    (
        7,
        "waits beyond its deadline",
        ("UPDATE pending SET expires_at = chaski_now() - interval '1 hour' WHERE message_id = %(id)s",),
    ),
    (
        9,
        "has children of another service: queue row",
        ("UPDATE pending SET service_id = -1 WHERE message_id = %(id)s",),
    ),
    (9, "has children of another service: event", ("UPDATE event SET service_id = -1 WHERE message_id = %(id)s",)),
    (
        10,
        "has an event that its service was not told",
        (
            "INSERT INTO untold (message_id, sequence, service_id) SELECT id, 1, service_id FROM message WHERE id = %(id)s",
            "UPDATE event SET at = chaski_now() - interval '1 hour' WHERE message_id = %(id)s",
        ),
    ),
]


@pytest.fixture
def api(transactional_db: None) -> Api:
    shop = make_caller("shop")
    make_account("sms", service=shop.service)
    return Api(shop)


def example(name: str) -> Any:
    return load_command_class("deliveries", name).examples[""]  # type: ignore[attr-defined]


def test_a_ledger_that_balances_exits_with_0_and_counts_every_side(api: Api) -> None:
    waiting, canceled, sent, doubtful = (api.send()["id"] for _ in range(4))
    move(canceled, Status.CANCELED)
    for message_id, path in ((sent, (Status.SENDING, Status.SENT)), (doubtful, (Status.SENDING, Status.IN_DOUBT))):
        with connection.cursor() as cursor:
            cursor.execute(ATTEMPT.format(number=1, end=NOW, outcome="accepted"), {"id": message_id})
        move(message_id, *path, attempt=1)
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
            "violations": [],
        },
    )
    assert set(example("ledger")) == set(said.json)
    told = run("ledger", "--since", "1h")
    assert (told.code, told.out) == (0, "")
    assert "4 accepted = 1 final + 1 handed over + 1 waiting + 0 in flight + 1 in doubt" in told.err
    assert waiting


def test_every_kind_of_broken_row_is_named_with_its_invariant(api: Api) -> None:
    Endpoint.objects.create(service=api.caller.service, url="https://a.example.com", account=Account.objects.get())
    ids = []
    for number, (_, _, statements) in enumerate([*BREAKS, (1, "", GONE)]):
        message_id = api.post(
            "messages", {"channel": "sms", "to": "+56912345678", "text": "x"}, key=f"k{number}"
        ).json()["id"]
        ids.append(message_id)
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, {"id": message_id})
    said = run("ledger", "--json")
    assert said.code == 1
    assert said.json["balanced"] is False
    assert same_shape(example("ledger"), said.json)
    found = {(v["invariant"], v["message_id"]): [] for v in said.json["violations"]}
    for violation in said.json["violations"]:
        found[violation["invariant"], violation["message_id"]].append(violation["detail"])
    for message_id, (invariant, words, _) in zip(ids, BREAKS, strict=False):
        assert any(words in detail for detail in found.get((invariant, message_id), [])), (invariant, words, found)
    assert any("counts by service, origin and hour differ" in v["detail"] for v in said.json["violations"])
    told = run("ledger")
    assert told.code == 1
    assert all(message_id in told.err for message_id in ids)
    assert "THE LEDGER DOES NOT BALANCE" in told.err


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
