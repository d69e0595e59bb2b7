"""POST /batches and GET /batches/{id}: good rows are kept, bad ones named by their place, counts and forecast agree."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from uuid_utils.compat import uuid7

from chaski.vocabulary import Status
from deliveries import intake
from deliveries.conf import limits
from deliveries.intake import batch as taking
from deliveries.models import Batch, Message, Pending
from tests.api.calls import LINES, SMS, Api, lease, move, nothing_stored, problem


def row(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {**SMS, "text": f"number {number}", **fields}


def as_lines(rows: Iterable[Any]) -> bytes:
    return b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows)


def send(api: Api, rows: list[Any], *, streamed: bool = False, status: int = 202, **body: Any) -> dict[str, Any]:
    if streamed:
        answer = api.post("batches", raw=as_lines(rows), content_type=LINES)
    else:
        answer = api.post("batches", {"messages": rows, **body})
    assert answer.status_code == status, answer.content
    told: dict[str, Any] = answer.json()
    return told


both = pytest.mark.parametrize("streamed", [False, True], ids=["json", "ndjson"])


@both
def test_good_rows_are_kept_and_bad_ones_named_by_their_place(api: Api, *, streamed: bool) -> None:
    rows = [row(0), row(1, to="1"), row(2), {"channel": "sms"}, 7, row(5, status="sent"), row(6)]
    told = send(api, rows, streamed=streamed)
    assert (told["accepted"], told["duplicates"], told["rejected_count"]) == (3, 0, 4)
    assert {bad["index"]: set(bad["errors"]) for bad in told["rejected"]} == {
        1: {"to"},
        3: {"to"},
        4: {"message"},
        5: {"status"},
    }
    assert Message.objects.count() == Pending.objects.count() == 3
    assert set(Message.objects.values_list("batch_id", flat=True)) == {Batch.objects.get().pk}


@both
def test_keys_and_ids_are_kept_per_row(api: Api, *, streamed: bool) -> None:
    ids = [str(uuid7()) for _ in range(2)]
    rows = [
        row(0, key="a"),
        row(0, key="a"),
        row(1, key="a"),
        row(2, id=ids[0]),
        row(2, id=ids[0]),
        row(3, id=ids[1], key="b"),
    ]
    told = send(api, rows, streamed=streamed)
    assert (told["accepted"], told["duplicates"]) == (3, 2)
    assert told["rejected"] == [
        {"index": 2, "errors": {"key": ["was used for another message; use a new key for a new message"]}}
    ]
    assert {str(pk) for pk in Message.objects.values_list("pk", flat=True)} >= set(ids)


@both
def test_a_batch_that_is_repeated_doubles_nothing(api: Api, *, streamed: bool) -> None:
    rows = [row(number, key=f"k{number}") for number in range(5)]
    send(api, rows, streamed=streamed)
    again = send(api, [*rows, row(9, key="new")], streamed=streamed)
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (1, 5, [])
    assert Message.objects.count() == 6


def test_a_key_of_a_message_counts_in_a_batch_and_the_other_way_round(api: Api) -> None:
    api.post("messages", SMS, key="one")
    told = send(api, [{**SMS, "key": "one"}, {**SMS, "key": "two"}, row(3, key="one")])
    assert (told["accepted"], told["duplicates"], told["rejected_count"]) == (1, 1, 1)
    assert api.post("messages", SMS, key="two").status_code == 200


@both
def test_an_id_that_is_taken_does_not_drag_its_neighbours(api: Api, theirs: Api, *, streamed: bool) -> None:
    taken = theirs.send()["id"]
    told = send(api, [row(n, id=taken) if n == 37 else row(n) for n in range(100)], streamed=streamed)
    assert told["accepted"] == 99
    assert [(bad["index"], set(bad["errors"])) for bad in told["rejected"]] == [(37, {"id"})]


def test_a_row_that_expires_before_its_commit_does_not_drag_its_neighbours(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = intake.draft

    def slow(*args: Any, **options: Any) -> Any:
        drafted = real(*args, **options)
        if drafted.reference == "late":  # as when the stream takes its time after the row was checked
            return replace(drafted, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        return drafted

    monkeypatch.setattr(taking, "draft", slow)
    monkeypatch.setattr(intake, "draft", slow)
    told = send(api, [row(0), row(1, reference="late"), row(2)])
    assert told["accepted"] == 2
    assert [(bad["index"], set(bad["errors"])) for bad in told["rejected"]] == [(1, {"expires_at"})]
    answer = api.post("messages", row(3, reference="late"))
    assert "expires_at" in problem(answer, 422, "invalid_message")["errors"]


def test_the_order_of_a_key_is_the_order_of_the_rows(api: Api) -> None:
    send(api, [row(number, ordering_key="ana", reference=str(number)) for number in range(20)])
    waiting = Pending.objects.order_by("position").values_list("message__reference", "blocked")
    assert list(waiting) == [(str(number), number > 0) for number in range(20)]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "messages"),
        ({"messages": []}, 422, "messages"),
        ({"messages": {}}, 422, "messages"),
        ([], 422, "messages"),
        ({"messages": [SMS], "service": 1}, 422, "service"),
        ({"messages": [SMS], "id": "7"}, 422, "id"),
        ({"messages": [SMS], "id": ""}, 422, "id"),
        ({"messages": [SMS], "id": 7}, 422, "id"),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(api: Api, body: Any, status: int, field: str) -> None:
    with nothing_stored():
        assert field in problem(api.post("batches", body), status, "invalid_batch")["errors"]


def test_more_than_ten_thousand_rows_are_refused_whole_with_the_remedy(api: Api) -> None:
    body = b'{"messages":[' + b",".join([b"{}"] * 10_001) + b"]}"
    with nothing_stored():
        found = problem(api.post("batches", raw=body), 413, "too_large")
    assert "application/x-ndjson" in found["errors"]["messages"][0]


def test_more_than_ten_megabytes_are_refused_whole(api: Api) -> None:
    with nothing_stored():
        problem(api.post("batches", raw=b" " * 10_000_001), 413, "too_large")


@pytest.mark.slow
def test_ten_thousand_rows_are_taken(api: Api) -> None:
    told = send(api, [row(number) for number in range(10_000)])
    assert (told["accepted"], Pending.objects.count()) == (10_000, 10_000)


def test_lines_that_are_no_messages_are_rejected_one_by_one(api: Api) -> None:
    rows = [
        row(0),
        b"",
        b"{",
        b'{"channel": "sms", "channel": "sms"}',
        "ñ".encode("latin-1"),
        b"x" * (limits().message_bytes + 1),
        b"[" * 100_000,
        row(6),
    ]
    told = send(api, rows, streamed=True)
    assert told["accepted"] == 2
    assert [bad["index"] for bad in told["rejected"]] == [1, 2, 3, 4, 5]
    assert "longer than 1,000,000 bytes" in told["rejected"][3]["errors"]["message"][0]


def test_rows_beyond_a_million_are_left_and_said_to_be(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.api.batches.limits", lambda: replace(limits(), stream_rows=3))
    told = send(api, [row(number) for number in range(5)], streamed=True)
    assert (told["accepted"], told["rejected"][0]["index"]) == (3, 3)


def test_only_ten_thousand_rejected_rows_are_told_and_all_are_counted(api: Api) -> None:
    told = send(api, [b"{}"] * 10_050, streamed=True)
    assert (len(told["rejected"]), told["rejected_count"]) == (10_000, 10_050)


def test_further_calls_add_to_a_batch(api: Api) -> None:
    batch = str(uuid7())
    first = send(api, [row(0), row(1, to="1")], id=batch)
    assert first["id"] == batch
    answer = api.post(f"batches?id={batch}", raw=as_lines([row(2)]), content_type=LINES)
    assert answer.json()["id"] == batch
    seen = api.get(f"batches/{batch}").json()
    assert (seen["accepted"], seen["rejected"], seen["counts"]) == (2, 1, {"queued": 2})


def test_another_services_batch_cannot_be_added_to(api: Api, theirs: Api) -> None:
    batch = send(theirs, [row(0)])["id"]
    with nothing_stored():
        problem(api.post("batches", {"id": batch, "messages": [SMS]}), 404, "not_found")
        problem(api.post(f"batches?id={batch}", raw=as_lines([SMS]), content_type=LINES), 404, "not_found")


def test_the_counts_are_committed_with_their_rows(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database goes away in the middle, what was committed is counted."""
    monkeypatch.setattr(taking, "CHUNK", 2)
    real, calls = taking.accept, []

    def fails_the_third_time(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise OperationalError("the connection is lost")
        return real(*args, **options)

    monkeypatch.setattr(taking, "accept", fails_the_third_time)
    answer = api.post("batches", {"messages": [row(number, key=str(number)) for number in range(6)]})
    assert "same keys" in problem(answer, 503, "unavailable")["detail"]
    assert answer["Retry-After"]
    assert Batch.objects.get().accepted == Message.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_chunks_are_committed_beside_the_checks_and_leave_no_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of a transaction of the caller's, where another thread commits."""
    monkeypatch.setattr(taking, "CHUNK", 2)
    threads: set[str] = set()
    real = taking.accept

    def noted(*args: Any, **options: Any) -> Any:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return real(*args, **options)

    monkeypatch.setattr(taking, "accept", noted)
    sent = send(api, [row(number % 6, key=str(number % 6)) for number in range(7)] + [{"channel": "sms"}])
    assert (sent["accepted"], sent["duplicates"], sent["rejected_count"]) == (6, 1, 1)
    assert "chaski-intake" in threads
    assert Batch.objects.get().accepted == Message.objects.count() == 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chaski-intake")]


@pytest.mark.django_db(transaction=True)
def test_what_fails_beside_the_checks_is_an_answer_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "CHUNK", 2)

    def fails(*args: Any, **options: Any) -> Any:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(taking, "accept", fails)
    problem(api.post("batches", {"messages": [row(number) for number in range(6)]}), 503, "unavailable")
    assert not Message.objects.exists()


def test_a_batch_shows_its_statuses_and_a_forecast_from_its_own_pace(api: Api) -> None:
    batch = send(api, [row(number) for number in range(4)])["id"]
    ids = [str(pk) for pk in Message.objects.order_by("pk").values_list("pk", flat=True)]
    seen = api.get(f"batches/{batch}").json()
    assert (seen["counts"], seen["finished"], seen["forecast_at"]) == ({"queued": 4}, 0, None)

    lease(ids[0])
    begun = datetime.now(UTC)
    move(ids[1], Status.SENDING, Status.SENT, at=begun + timedelta(seconds=10))
    seen = api.get(f"batches/{batch}").json()
    assert (seen["counts"], seen["finished"]) == ({"queued": 2, "sending": 1, "sent": 1}, 1)
    # one message in about ten seconds: the three others will have taken thirty more
    forecast = datetime.fromisoformat(seen["forecast_at"])
    assert timedelta(seconds=35) < forecast - begun < timedelta(seconds=45)

    for message_id in (ids[0], ids[2]):
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE pending SET lease_until = NULL, lease_token = NULL WHERE message_id = %s", [message_id]
            )
        move(message_id, Status.FAILED, at=begun + timedelta(seconds=12))
    move(ids[3], Status.CANCELED, at=begun + timedelta(seconds=15))
    seen = api.get(f"batches/{batch}").json()
    assert (seen["counts"], seen["finished"]) == ({"sent": 1, "failed": 2, "canceled": 1}, 4)
    assert datetime.fromisoformat(seen["forecast_at"]) == begun + timedelta(seconds=15)
