"""The parked tasks' table: bounded, counted, cut, forgotten in time; what people decide about them is audited."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from chaski.vocabulary import Lane
from config.celery import app
from deliveries import maintenance, parking
from deliveries.doorbell import Publisher
from deliveries.models import Audit, Parked
from deliveries.models.parked import Reason
from deliveries.parking import Lot, NotPublishable, Stray, discard, publish_again
from tests.commands.shell import refused, run
from tests.deliveries import steps
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db
CALL = json.dumps([[], {"channel": "sms", "ids": []}, {}])


def park(*strays: Stray) -> list[Parked]:
    with connection.cursor() as cursor:
        parking.park(cursor, strays)
    return list(Parked.objects.order_by("pk"))


def stray(payload: str = CALL, reason: Reason = Reason.UNKNOWN_TASK, **fields: Any) -> Stray:
    return Stray(**{"reason": reason, "queue": "normal", "name": "deliver.sms", "payload": payload, **fields})


def test_the_same_payload_counts_on_one_row_and_another_has_its_own() -> None:
    park(stray("a", task_id="1"), stray("b"), stray("a", task_id="2"))
    rows = sorted(park(stray("a", task_id="3")), key=lambda row: row.payload)
    assert [(row.payload, row.times, row.task_id) for row in rows] == [("a", 3, "3"), ("b", 1, "")]
    assert rows[0].last_at >= rows[0].first_at


def test_notes_count_by_what_they_say_whatever_they_carry() -> None:
    rows = park(*(stray(str(n), Reason.EXTRA_ARGUMENTS, detail="shard") for n in range(100)))
    assert [(row.times, row.detail) for row in rows] == [(100, "shard")]
    assert len(park(stray("1", Reason.EXTRA_ARGUMENTS, detail="other"))) == 2


def test_a_full_table_counts_what_it_cannot_keep_and_still_counts_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MOST_ROWS", 3)
    park(*(stray(str(n)) for n in range(3)))
    park(*(stray(str(n)) for n in range(50)))
    rows = park(stray("x", Reason.UNREADABLE))
    assert len(rows) == 5, "three, and one for each reason"
    assert sorted(row.times for row in rows) == [1, 2, 2, 2, 47]
    over = max(rows, key=lambda row: row.times)
    assert (over.payload, over.name) == ("", "")
    assert "payloads not kept" in over.detail
    with pytest.raises(NotPublishable):
        publish_again(over, actor="a", reason="r")


def test_a_long_payload_is_cut_and_says_so() -> None:
    nul, long = sorted(park(stray("x" * 10_000), stray("a\0b")), key=lambda row: row.payload)
    assert (len(long.payload), long.payload_chars, long.whole) == (parking.PAYLOAD_CHARS, 10_000, False)
    assert (nul.payload, nul.whole) == ("ab", True)
    with pytest.raises(NotPublishable, match="8,000 of its 10,000"):
        publish_again(long, actor="a", reason="r")


def test_what_has_not_come_for_thirty_days_is_forgotten() -> None:
    park(stray("old"), stray("again"))
    with steps.later(timedelta(days=20)):
        park(stray("again"))
    with steps.later(timedelta(days=31)):
        assert maintenance.run()["parked"] == 1
    assert [row.payload for row in Parked.objects.all()] == ["again"]


def test_one_that_is_known_by_now_goes_back_to_its_queue_with_its_arguments() -> None:
    publisher = Publisher()
    before = publisher.depth(Lane.BULK)
    (row,) = park(stray(queue="bulk"))
    number = row.pk
    publish_again(row, actor="shell:ana", reason="the new release runs")
    client = publisher._connect().default_channel.client
    assert publisher.depth(Lane.BULK) == before + 1
    raw = json.loads(client.lpop("bulk"))
    publisher.close()
    assert raw["headers"]["task"] == "deliver.sms"
    assert "'channel': 'sms'" in raw["headers"]["kwargsrepr"]
    act = Audit.objects.get()
    assert (act.actor, act.action, act.target) == ("shell:ana", "parked_publish", f"parked:{number}")
    assert act.reason == "the new release runs"
    assert not Parked.objects.exists()


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (stray(name="deliver.fax"), "no task deliver.fax"),
        (stray("{not json", Reason.UNREADABLE), "not what a task carries"),
        (stray("{}", Reason.UNREADABLE), "not what a task carries"),
        (stray("[1, 2]", Reason.UNREADABLE), "not what a task carries"),
        (stray("[1, 2, 3]", Reason.UNREADABLE), "not what a task carries"),
    ],
)
def test_what_would_only_be_parked_again_is_refused_in_a_sentence_and_kept(kept: Stray, says: str) -> None:
    (row,) = park(kept)
    refused(run("parked", "replay", str(row.pk), "--reason", "try"), says, "parked discard")
    assert Parked.objects.filter(pk=row.pk).exists()
    assert not Audit.objects.exists()


def test_discarding_is_audited_with_what_it_was() -> None:
    (row,) = park(stray(task_id="t-1"))
    discard(row, actor="shell:ana", reason="of a test")
    act = Audit.objects.get()
    assert act.action == "parked_discard"
    assert act.detail == {"name": "deliver.sms", "task_id": "t-1", "why": "unknown_task", "times": 1}
    refused(run("parked", "discard", str(row.pk or 1), "--reason", "again"), "nothing is parked under")


def test_the_list_is_for_people_and_for_machines() -> None:
    assert "Nothing is parked." in run("parked", "list").err
    park(stray(), stray("x", Reason.EXTRA_ARGUMENTS, detail="shard"))
    said = run("parked", "list", "--json")
    assert {row["reason"] for row in said.json["parked"]} == {"unknown_task", "extra_arguments"}
    assert "there is no task of this name" in said.err
    assert "shard" in said.err


def test_the_admin_shows_it_and_changes_nothing() -> None:
    (row,) = park(stray("<script>alert(1)</script>"))
    client = Client(headers={"x-forwarded-proto": "https"})
    client.force_login(User.objects.create_superuser("boss", password="x"))
    page = client.get(f"/admin/deliveries/parked/{row.pk}/change/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "deliver.sms" in client.get("/admin/deliveries/parked/").content.decode()
    assert client.post(f"/admin/deliveries/parked/{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_only_a_bell_of_a_known_channel_has_one_to_look_at() -> None:
    assert app.conf.worker_consumer == "config.consumer:Consumer"
    assert stray().channel == "sms"
    assert stray(name="deliver.fax").channel == ""
    assert stray(name="sms").channel == ""


@pytest.mark.django_db(transaction=True)
def test_one_that_cannot_be_finished_keeps_none_behind_it_waiting() -> None:
    """The connection to the broker may be gone when it is to be acknowledged."""
    lot, finished = Lot(), []

    def fail(_: bool) -> None:
        raise RuntimeError("the channel is closed")

    lot.put(stray("first"), fail)
    lot.put(stray("second"), finished.append)
    wait_for(lambda: finished == [True], 10, "the second one")
    lot.put(stray("third"), finished.append)
    wait_for(lambda: finished == [True, True], 10, "the thread to be alive still")
    lot._connection.close()


@pytest.mark.django_db(transaction=True)
def test_one_that_cannot_be_written_for_a_reason_that_nobody_expects_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lot, finished = Lot(), []
    monkeypatch.setattr(parking, "HOLD_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(parking, "park", lambda *_: 1 / 0)
        lot.put(stray("first"), finished.append)
        wait_for(lambda: finished == [False], 10, "it being given back")
    lot.put(stray("second"), finished.append)
    wait_for(lambda: finished == [False, True], 10, "the next one")
    lot._connection.close()
