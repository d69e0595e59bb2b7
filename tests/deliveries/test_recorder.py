"""The recorder against a real database that does not take everything: rows that somebody holds, another schema, a restore."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import structlog
from django.db import connection, transaction

from chaski.vocabulary import Status
from deliveries.conf import limits, timings
from deliveries.delivery import database, halving, recorder
from deliveries.delivery import replay as replaying
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.lines import of_line
from deliveries.delivery.recorder import Recorder, Result
from deliveries.delivery.replay import Replay
from deliveries.delivery.settle import Settlement, settle
from deliveries.delivery.spill import Spill
from deliveries.models import Account, Pending
from deliveries.retry import Decision, Outcome
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)
SENT, ACCEPTED = Decision((Status.SENT,)), Outcome(provider_message_id="SM1")


@pytest.fixture(autouse=True)
def folder(shop: Caller, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spill folder of this test, whose locks are waited for less long."""
    make_account("sms")
    monkeypatch.setattr(database, "SESSION", f"{database.SESSION}; SET lock_timeout = '300ms'")
    settings.CHASKI_SPILL = str(tmp_path / "spill")
    return tmp_path / "spill"


@pytest.fixture
def somebody() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Another connection, whose locks are let go by a rollback."""
    engine = EngineConnection()
    opened = engine._open()
    opened.autocommit = False
    yield opened
    opened.rollback()
    engine.close()


class Recording:
    """A recorder without its thread, and whose results it said were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[UUID] = []
        self.waits: list[float] = []
        #: Of the statements that it asked the database.
        self.failures: list[psycopg.Error] = []
        self.given: set[UUID] = set()
        self.meanwhile: Callable[[], None] = lambda: None
        self.recorder = Recorder(lambda: 0)
        monkeypatch.setattr(self.recorder, "_wait", self._wait)
        self._transaction = self.recorder._connection.transaction
        monkeypatch.setattr(self.recorder._connection, "transaction", self._noted)

    @contextmanager
    def _noted(self) -> Iterator[Any]:
        try:
            with self._transaction() as cursor:
                yield cursor
        except psycopg.Error as error:
            self.failures.append(error)
            raise

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        assert len(self.waits) < 40, "it waits for ever"
        self.meanwhile()

    def record(self, rows: list[Settlement]) -> None:
        self.recorder._record([self._result(row) for row in rows])

    def put_once(self, rows: list[Settlement]) -> None:
        """They come on the queue, if they have not come yet."""
        for row in rows:
            if row.id not in self.given:
                self.given.add(row.id)
                self.recorder.put(self._result(row))

    def _result(self, row: Settlement) -> Result:
        return Result(row, lambda: self.done.append(row.id))

    def look(self) -> None:
        """Look at what was passed over, as if it were time."""
        self.recorder._looked_at = float("-inf")
        self.recorder._look_again()

    def drain(self) -> None:
        """Record what is held back, until there is none."""
        while self.recorder._waiting:
            self.recorder._record(self.recorder._collect())


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    made = Recording(monkeypatch)
    yield made
    made.recorder._connection.close()


def answered(shop: Caller, count: int) -> list[Settlement]:
    """Messages that their provider has accepted, which nobody has written yet."""
    steps.accept(shop.service, count)
    claimed = steps.claim()
    steps.begun(claimed)
    return [Settlement(c.id, c.number, c.token, c.account_id, c.opened_at, ACCEPTED, SENT) for c in claimed]


def statuses(rows: list[Settlement]) -> list[str]:
    return [steps.message(row.id).status for row in rows]


def kept(folder: Path, kind: str) -> list[UUID]:
    """The ids of what lies in the files of a kind."""
    found = []
    for file in folder.glob(f"*.{kind}"):
        for line in file.read_text().splitlines()[1 if kind == "results" else 0 :]:
            found.append(of_line(json.loads(line)["line"] if kind == "rejected" else line).id)
    return found


# -- rows that somebody holds


@pytest.mark.parametrize("table", ["message WHERE id", "pending WHERE message_id", "attempt WHERE message_id"])
def test_a_row_that_somebody_holds_waits_alone_and_is_recorded_when_it_is_free(
    shop: Caller, folder: Path, recording: Recording, somebody: psycopg.Connection[Any], table: str
) -> None:
    held, *others = rows = answered(shop, 9)
    somebody.execute(f"SELECT 1 FROM {table} = %s FOR UPDATE", [held.id])
    recording.record(rows)
    assert statuses(others) == ["sent"] * 8
    assert set(recording.done) == {row.id for row in others}, "its place is not given back"
    assert held.id in kept(folder, "results")
    assert not recording.waits, "it is no outage"
    recording.recorder._look_again()
    assert steps.message(held.id).status == "queued"
    later = answered(shop, 3)
    recording.record(later)
    assert statuses(later) == ["sent"] * 3, "nor does it keep what comes later"
    somebody.rollback()
    recording.look()
    assert steps.message(held.id).status == "sent"
    assert held.id in recording.done
    assert not list(folder.iterdir()), "nothing was rejected, and nothing is left to keep"


def test_a_row_that_waits_is_looked_at_again_soon_and_not_without_pause(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (held,) = rows = answered(shop, 1)
    somebody.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [held.id])
    recording.record(rows)
    looks: list[int] = []
    waits: list[float] = []
    recording.recorder._replay_at = float("inf")

    def pass_over(batch: list[Result]) -> None:
        looks.append(len(batch))
        recording.recorder._passed_over += batch

    monkeypatch.setattr(recording.recorder, "_pass_over", pass_over)
    monkeypatch.setattr(recording.recorder, "_arrived", lambda seconds: waits.append(seconds) or [])
    for _ in range(3):
        assert recording.recorder._collect() == []
        recording.recorder._look_again()
    assert looks == [1]
    assert waits == [timings().locked_seconds] * 3


def test_two_results_of_one_message_are_written_one_after_the_other(
    shop: Caller, folder: Path, recording: Recording
) -> None:
    (first,) = answered(shop, 1)
    with steps.later(timedelta(seconds=steps.LEASE_SECONDS + 1)):
        steps.swept()
        (claimed,) = steps.claim()
        steps.begun([claimed])
    second = replace(first, number=claimed.number, token=claimed.token, opened_at=claimed.opened_at)
    recording.record([first, second])
    recording.drain()
    assert statuses([first]) == ["sent"]
    assert recording.done == [first.id, first.id]
    assert not list(folder.glob("*.rejected"))


def test_what_breaks_in_our_own_code_ends_neither_the_thread_nor_loses_a_result_that_was_passed_over(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = answered(shop, 1)
    recording.recorder._passed_over = [Result(row, lambda: recording.done.append(row.id))]
    monkeypatch.setattr(recorder, "free", lambda *_: 1 / 0)
    recording.recorder._look_again()
    assert kept(folder, "rejected") == recording.done == [row.id]


def test_an_account_that_somebody_holds_keeps_only_what_would_stop_it(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    stops, *others = answered(shop, 4)
    decision = Decision((Status.QUEUED,), due_at=steps.now(), stop_account=True)
    stops = replace(stops, outcome=Outcome("misconfigured", "20003"), decision=decision)
    somebody.execute("UPDATE account SET priority = priority")
    recording.record([stops, *others])
    assert statuses(others) == ["sent"] * 3
    assert recording.done == [row.id for row in others]
    somebody.rollback()
    recording.look()
    assert Account.objects.get().stopped_at is not None


def test_a_bad_row_beside_one_that_is_held_is_still_found(
    shop: Caller, folder: Path, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    held, bad, *others = answered(shop, 4)
    bad = replace(bad, outcome=Outcome("not_sent", "a\0b"))  # jsonb takes no NUL
    somebody.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [held.id])
    recording.record([held, bad, *others])
    assert statuses(others) == ["sent"] * 2
    assert kept(folder, "rejected") == [bad.id]
    assert held.id not in recording.done


def test_a_row_that_goes_against_our_own_rules_keeps_nobody_else_out(
    shop: Caller, folder: Path, recording: Recording
) -> None:
    odd, *others = answered(shop, 4)
    odd = replace(odd, decision=Decision((Status.CANCELED, Status.SENT)))  # no such way: a line of another release, say
    recording.record([others[0], odd, *others[1:]])
    assert statuses(others) == ["sent"] * 3
    assert kept(folder, "rejected") == [odd.id]
    assert sorted(recording.done) == sorted(row.id for row in [odd, *others])


def test_a_database_that_holds_everything_is_an_outage_and_is_not_asked_row_by_row(
    shop: Caller, folder: Path, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    rows = answered(shop, 40)

    def over() -> None:
        assert len(kept(folder, "results")) == 40, "all of them are on the disk"
        if len(recording.waits) == 2:
            somebody.rollback()

    recording.meanwhile = over
    somebody.execute("LOCK TABLE message")
    recording.record(rows)
    recording.drain()
    assert statuses(rows) == ["sent"] * 40
    assert len(recording.waits) == 2
    assert len(recording.failures) <= 2 * len(recording.waits)
    assert sorted(recording.done) == sorted(row.id for row in rows)
    assert not list(folder.iterdir())


def test_a_database_that_is_slow_for_many_rows_is_given_fewer(
    shop: Caller, recording: Recording, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = answered(shop, 16)

    def refuse(cursor: Any, some: list[Settlement]) -> set[UUID]:
        if len(some) > 4:
            raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        return settle(cursor, some)

    monkeypatch.setattr(recorder, "settle", refuse)
    recording.record(rows)
    recording.drain()
    assert statuses(rows) == ["sent"] * 16
    assert sorted(recording.done) == sorted(row.id for row in rows)


def test_a_lock_that_outlives_the_lease_sends_nothing_twice(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    (held,) = rows = answered(shop, 1)
    somebody.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [held.id])
    recording.record(rows)
    Pending.objects.update(lease_until=steps.now() - timedelta(seconds=1))
    recording.look()
    somebody.rollback()
    assert steps.swept() == 0, "its worker is alive and knows what became of it"
    recording.look()
    assert statuses(rows) == ["sent"]
    assert steps.message(held.id).in_doubt_count == 0


def test_a_lease_that_is_another_workers_by_now_is_left_alone(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    (row,) = answered(shop, 1)
    somebody.execute("SELECT 1 FROM attempt WHERE message_id = %s FOR UPDATE", [row.id])
    ended = steps.now() - timedelta(seconds=1)
    Pending.objects.update(lease_until=ended, lease_token=uuid4())
    recording.record([row])
    recording.look()
    assert not recording.done
    assert steps.pending(row.id).lease_until == ended  # type: ignore[union-attr]


def test_who_holds_a_place_in_the_queue_is_not_waited_for_to_prolong_others(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any]
) -> None:
    first, second = rows = answered(shop, 2)
    somebody.execute("SELECT 1 FROM pending WHERE message_id = %s FOR UPDATE", [first.id])
    somebody.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [second.id])
    recording.record(rows)
    recording.look()
    assert recording.failures[1:] == [], "after the first, which found out"


def suppressed_by(somebody: psycopg.Connection[Any], row: Settlement) -> Settlement:
    """``row`` refused for good, while an operator's suppression of the same recipient is not committed yet."""
    somebody.execute(
        "INSERT INTO suppression (service_id, channel, recipient, reason, actor)"
        " SELECT service_id, channel, recipient, '', 'ada' FROM message WHERE id = %s",
        [row.id],
    )
    return suppressing(row)


def test_what_waits_for_something_else_than_its_rows_lets_the_others_pass(
    shop: Caller, recording: Recording, folder: Path, somebody: psycopg.Connection[Any]
) -> None:
    first, *others = answered(shop, 101)
    refused = suppressed_by(somebody, first)
    fresh = answered(shop, 50)
    recording.meanwhile = lambda: recording.put_once(fresh)
    recording.record([*others[:40], refused, *others[40:]])
    recording.meanwhile()
    while set(statuses([*others, *fresh])) != {"sent"}:
        assert len(recording.failures) <= 10
        recording.recorder._record(recording.recorder._collect())
    assert len(recording.failures) <= 10
    assert not recording.waits
    assert sorted(recording.done) == sorted(row.id for row in (*others, *fresh)), "its place is not given back"
    assert refused.id in kept(folder, "results")
    somebody.rollback()
    recording.look()
    assert statuses([refused]) == ["failed"]
    assert not list(folder.iterdir())


def suppressing(row: Settlement) -> Settlement:
    outcome = Outcome("recipient_refused", "21610", suppress=True)
    return replace(row, outcome=outcome, decision=Decision((Status.FAILED,)))


def test_while_something_is_passed_over_nothing_waits_for_the_whole_lock_timeout(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SESSION", f"{database.SESSION}; SET lock_timeout = '4s'")
    first, second = (suppressing(row) for row in answered(shop, 2))
    somebody.execute("LOCK TABLE suppression")
    recording.recorder._passed_over = [recording._result(first)]
    started = time.monotonic()
    recording.record([second])
    assert time.monotonic() - started < 2.5
    somebody.rollback()
    recording.look()
    assert statuses([first, second]) == ["failed"] * 2


def test_a_table_that_somebody_holds_is_not_asked_for_row_by_row(
    shop: Caller, recording: Recording, folder: Path, somebody: psycopg.Connection[Any]
) -> None:
    rows = answered(shop, 40)
    somebody.execute("LOCK TABLE event")
    recording.record(rows)
    assert len(recording.failures) <= 20
    assert sorted(kept(folder, "results")) == sorted(row.id for row in rows)
    recording.look()
    assert len(recording.failures) <= 40
    assert not recording.done
    somebody.rollback()
    recording.look()
    assert statuses(rows) == ["sent"] * 40
    assert not list(folder.iterdir())


def test_many_that_wait_alone_let_the_others_pass_sooner_or_later(
    shop: Caller, recording: Recording, somebody: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them side by side than failures in a row are allowed."""
    monkeypatch.setattr(halving, "ALIKE", 4)
    rows = answered(shop, 12)
    refused, others = [suppressing(row) for row in rows[:4]], rows[4:]
    somebody.execute("LOCK TABLE suppression")
    recording.record([*refused, *others])
    for _ in range(5):
        recording.look()
    assert statuses(others) == ["sent"] * 8
    assert not set(recording.done) & {row.id for row in refused}


def test_a_held_row_keeps_its_file_for_a_later_replay_and_nobody_elses(
    shop: Caller, folder: Path, somebody: psycopg.Connection[Any]
) -> None:
    held, *others = rows = answered(shop, 4)
    left_behind(folder, rows)
    (beside,) = answered(shop, 1)
    left_behind(folder, [beside])
    opened = EngineConnection()
    somebody.execute("SELECT 1 FROM message WHERE id = %s FOR UPDATE", [held.id])
    steps_of(Replay(folder, opened))
    assert statuses([*others, beside]) == ["sent"] * 4
    assert held.id in kept(folder, "results")
    somebody.rollback()
    steps_of(Replay(folder, opened))
    opened.close()
    assert steps.message(held.id).status == "sent"
    assert not list(folder.iterdir())


def test_an_orphan_waits_for_no_row_that_somebody_holds(
    shop: Caller, folder: Path, somebody: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deliveries.delivery.replay.limits", lambda: replace(limits(), record_rows=1))
    rows = answered(shop, 3)
    left_behind(folder, rows)
    somebody.execute("SELECT 1 FROM message FOR UPDATE")
    tried: list[int] = []
    monkeypatch.setattr(replaying, "settle", lambda cursor, some: tried.append(len(some)) or settle(cursor, some))
    failures = replayed(folder)
    assert failures == []
    assert set(tried) <= {0}
    assert sorted(kept(folder, "results")) == sorted(row.id for row in rows)


def test_fresh_results_come_between_two_orphans(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = answered(shop, 2)
    for row in rows:
        left_behind(folder, [row])
    waits: list[float] = []
    monkeypatch.setattr(recording.recorder, "_arrived", lambda seconds: waits.append(seconds) or [])
    for settled in (1, 2, 2):
        recording.recorder._settle_orphans()
        assert statuses(rows).count("sent") == settled
        recording.recorder._collect()
    assert waits[:2] == [0.0, 0.0], "while there may be more, it does not wait for results"
    assert 0 < waits[2] <= timings().replay_seconds


# -- a database that is not what this code expects


@contextmanager
def renamed() -> Iterator[None]:
    """As before a migration, or after the restore of an older schema."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE inquiry RENAME TO inquiry_of_another_time")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE inquiry_of_another_time RENAME TO inquiry")


@pytest.mark.parametrize("state", ["42P01", "42703", "42501", "42883", "0A000", "XX000", "3F000"])
def test_errors_that_blame_the_schema_wait_for_another_one(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    rows = answered(shop, 3)
    pids: list[int] = []

    def refuse(cursor: Any, some: list[Settlement]) -> set[UUID]:
        cursor.execute("SELECT pg_backend_pid()")
        pids.append(cursor.fetchone()[0])
        if looks < 3:
            refuses(cursor, state)
        return settle(cursor, some)

    monkeypatch.setattr(recorder, "settle", refuse)
    looks = 0
    with structlog.testing.capture_logs() as logs:
        recording.record(rows)
        for looks in range(1, 4):  # noqa: B007
            recording.look()
    assert statuses(rows) == ["sent"] * 3
    assert len(set(pids)) == len(pids), "a new connection may see another schema"
    assert not list(folder.iterdir()), "nothing was rejected"
    said = [log for log in logs if log["event"] == "results_wait_for_another_schema"]
    assert [log["sqlstate"] for log in said] == [state], "once"


def refuses(cursor: Any, state: str) -> None:
    """Let the server itself refuse with ``state``."""
    cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")


def refuse_for(monkeypatch: pytest.MonkeyPatch, module: object, state: str, ids: set[UUID]) -> None:
    """Let ``module`` settle nothing together with one of ``ids``."""

    def some(cursor: Any, rows: list[Settlement]) -> set[UUID]:
        if ids & {row.id for row in rows}:
            refuses(cursor, state)
        return settle(cursor, rows)

    monkeypatch.setattr(module, "settle", some)


STATES = ["42P01", "42703", "42501", "42883", "0A000", "XX001", "3F000", "26000"]


@pytest.mark.parametrize("state", STATES)
def test_such_an_error_that_comes_of_one_row_keeps_that_one_alone_waiting(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A right that is missing on a table which only some results touch, say, or a damaged value."""
    rows = answered(shop, 20)
    refuse_for(monkeypatch, recorder, state, bad := {rows[7].id})
    others = [row for row in rows if row.id not in bad]
    with structlog.testing.capture_logs() as logs:
        recording.record(rows)
        recording.look()
        fresh = answered(shop, 3)
        recording.record(fresh)
        recording.look()
    assert statuses([*others, *fresh]) == ["sent"] * 22
    assert not bad & set(recording.done)
    assert bad <= set(kept(folder, "results"))
    assert not list(folder.glob("*.rejected"))
    said = [log for log in logs if log["log_level"] == "error"]
    assert [(log["event"], log["sqlstate"]) for log in said] == [("results_wait_for_another_schema", state)], "once"
    monkeypatch.setattr(recorder, "settle", settle)
    recording.look()
    assert statuses(rows) == ["sent"] * 20
    assert not list(folder.iterdir())


def test_another_schema_is_not_asked_row_by_row_and_ever_less_often(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = answered(shop, 40)
    refuse_for(monkeypatch, recorder, "42P01", {row.id for row in rows})
    recording.record(rows)
    assert len(recording.failures) <= 20
    for _ in range(12):
        recording.look()
    assert recording.recorder._look_seconds == timings().record_retry_seconds
    assert not recording.done
    monkeypatch.setattr(recorder, "settle", settle)
    recording.look()
    assert statuses(rows) == ["sent"] * 40
    assert recording.recorder._look_seconds == timings().locked_seconds
    assert not list(folder.iterdir())


@pytest.mark.parametrize("state", STATES)
def test_an_orphans_row_that_alone_fails_so_keeps_neither_its_file_nor_the_next_waiting(
    shop: Caller, folder: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr("deliveries.delivery.replay.limits", lambda: replace(limits(), record_rows=3))
    rows = answered(shop, 12)
    bad = {rows[0].id, rows[7].id}
    left_behind(folder, rows[:1])
    left_behind(folder, rows[1:])
    with monkeypatch.context() as patched:
        refuse_for(patched, replaying, state, bad)
        replayed(folder)
    assert statuses([row for row in rows if row.id not in bad]) == ["sent"] * 10
    assert bad <= set(kept(folder, "results"))
    assert not list(folder.glob("*.rejected"))
    replayed(folder)
    assert statuses(rows) == ["sent"] * 12
    assert not list(folder.iterdir())


def test_a_table_that_is_missing_costs_no_result(shop: Caller, folder: Path, recording: Recording) -> None:
    rows = answered(shop, 3)
    with renamed():
        recording.record(rows)
        recording.look()
        assert sorted(kept(folder, "results")) == sorted(row.id for row in rows)
    recording.look()
    assert statuses(rows) == ["sent"] * 3
    assert not list(folder.iterdir())


def test_an_orphans_row_that_goes_against_our_own_rules_keeps_nobody_else_out(shop: Caller, folder: Path) -> None:
    odd, *others = answered(shop, 3)
    left_behind(folder, [replace(odd, decision=Decision((Status.CANCELED, Status.SENT))), *others])
    replayed(folder)
    assert statuses(others) == ["sent"] * 2
    assert kept(folder, "rejected") == [odd.id]


def test_an_orphan_waits_for_another_schema_too(shop: Caller, folder: Path) -> None:
    rows = answered(shop, 3)
    left_behind(folder, rows)
    opened = EngineConnection()
    with renamed(), pytest.raises(psycopg.errors.UndefinedTable):
        steps_of(Replay(folder, opened))
    assert len(kept(folder, "results")) == 3
    steps_of(Replay(folder, opened))
    opened.close()
    assert statuses(rows) == ["sent"] * 3
    assert not list(folder.iterdir())


# -- a database that was restored under a worker


def test_results_of_attempts_that_the_database_does_not_know_are_kept_for_people(
    shop: Caller, folder: Path, recording: Recording
) -> None:
    lost, ours, late = answered(shop, 3)
    forgotten = replace(lost, token=uuid4())  # the attempt was opened after the backup
    with transaction.atomic(), connection.cursor() as cursor:
        settle(cursor, [late])
    recording.record([forgotten, ours, late])
    assert steps.message(ours.id).status == "sent"
    assert len(recording.done) == 3
    (file,) = folder.glob("*.rejected")
    (line,) = file.read_text().splitlines()
    assert of_line(json.loads(line)["line"]) == replace(forgotten, outcome=replace(forgotten.outcome, detail=""))
    assert "knows no such attempt" in json.loads(line)["reason"]
    assert not list(folder.glob("*.results"))


def test_a_commit_that_fails_sets_nothing_aside_twice(
    shop: Caller, folder: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lost,) = answered(shop, 1)
    forgotten = replace(lost, token=uuid4())
    real = recording.recorder._connection.transaction

    @contextmanager
    def transaction() -> Iterator[Any]:
        with real() as cursor:
            yield cursor
            if not recording.waits:
                raise psycopg.OperationalError("the connection broke at the COMMIT")

    monkeypatch.setattr(recording.recorder._connection, "transaction", transaction)
    recording.record([forgotten])
    assert len(recording.waits) == 1
    assert kept(folder, "rejected") == [lost.id]


def replayed(folder: Path) -> list[psycopg.Error]:
    """Settle all orphans, as a recorder does; the errors of the statements."""
    opened, failures = EngineConnection(), list[psycopg.Error]()
    real = opened.transaction

    @contextmanager
    def noted() -> Iterator[Any]:
        try:
            with real() as cursor:
                yield cursor
        except psycopg.Error as error:
            failures.append(error)
            raise

    opened.transaction = noted  # type: ignore[method-assign]
    steps_of(Replay(folder, opened))
    opened.close()
    return failures


def steps_of(replay: Replay) -> None:
    """One round of it."""
    while replay.step() is not None:
        pass


def left_behind(folder: Path, rows: list[Settlement]) -> None:
    """The file of a worker that died."""
    spill = Spill(folder)
    spill.keep(rows)
    os.close(spill._descriptor)


def test_an_urgent_result_waits_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = replace(timings(), record_seconds=30.0)
    monkeypatch.setattr(recorder, "timings", lambda: patient)
    busy = Recorder(lambda: 1_000)
    row = Settlement(uuid4(), 1, uuid4(), 1, steps.now(), ACCEPTED, SENT)
    for urgent in (False, True):
        busy.put(Result(row, lambda: None, urgent=urgent))
    begun = time.monotonic()
    assert len(busy._arrived(1.0)) == 2
    assert time.monotonic() - begun < 5.0
