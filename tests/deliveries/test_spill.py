"""The spill: results of calls that ended while the database was away survive the end of their worker."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection

from channels.base import ReceiptKind
from chaski.vocabulary import Status
from config.ports import any_free
from deliveries import acts, diagnosis
from deliveries.delivery import recorder as recording
from deliveries.delivery import replay as replaying
from deliveries.delivery import spill as spilling
from deliveries.delivery.claim import Claimed
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.lines import of_line, to_line
from deliveries.delivery.recorder import Recorder, Result
from deliveries.delivery.replay import Replay
from deliveries.delivery.settle import Settlement
from deliveries.delivery.spill import Spill
from deliveries.findings import Finding, Level
from deliveries.models import Attempt, Event
from deliveries.retry import Decision, History, Outcome, Policy, decide
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]
ACCEPTED = Outcome(detail="queued", provider_message_id="SM1")


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")


@pytest.fixture
def folder(tmp_path: Path, settings: object) -> Path:
    """The spill folder of this test."""
    settings.CHASKI_SPILL = str(tmp_path / "spill")  # type: ignore[attr-defined]
    return tmp_path / "spill"


def replayed(replay: Replay) -> int:
    """One round of it; how many lines it settled."""
    settled = 0
    while (lines := replay.step()) is not None:
        settled += lines
    return settled


@pytest.fixture
def replay(folder: Path) -> Iterator[Callable[[], int]]:
    """Settle orphans, as a worker does at its start."""
    opened = EngineConnection()
    yield lambda: replayed(Replay(folder, opened))
    opened.close()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what the spill logs."""
    names: list[str] = []

    class Log:
        def warning(self, event: str, **_: object) -> None:
            names.append(event)

        error = exception = warning

    for module in (spilling, replaying):
        monkeypatch.setattr(module, "log", Log())
    return names


def begun(service: Caller, count: int = 1) -> list[Claimed]:
    """Messages whose calls are under way."""
    steps.accept(service.service, count)
    claimed = steps.claim()
    steps.begun(claimed)
    return claimed


def settlement(claimed: Claimed, outcome: Outcome = ACCEPTED) -> Settlement:
    """What its worker would write."""
    history = History(claimed.tries, claimed.blind_count, claimed.expires_at, claimed.number)
    decision = decide(outcome, history, Policy(), steps.now())
    return Settlement(
        claimed.id,
        claimed.number,
        claimed.token,
        claimed.account_id,
        claimed.opened_at,
        outcome,
        decision,
        at=steps.now(),
    )


def left_behind(folder: Path, rows: Sequence[Settlement]) -> Path:
    """The file of a worker that died."""
    spill = Spill(folder)
    spill.keep(rows)
    assert spill._file is not None
    os.close(spill._descriptor)  # the kernel does this for a process that ends
    return spill._file


#: A worker's recorder and nothing else of it, in a process of its own: records the lines of a file.
WORKER = """
import django, sys, threading
django.setup()
from pathlib import Path
from deliveries.delivery.lines import of_line
from deliveries.delivery.recorder import Recorder, Result
recorder = Recorder(lambda: 0)
recorder.start()
done = threading.Semaphore(0)
rows = [of_line(line) for line in Path(sys.argv[1]).read_bytes().splitlines()]
for row in rows:
    recorder.put(Result(row, done.release))
for row in rows or [None]:
    done.acquire()
"""


def worker(folder: Path, rows: Sequence[Settlement], *, database: str, crash_at: str) -> int:
    """Run it until it dies; its exit code."""
    given = folder.with_name("given")
    given.write_bytes(b"".join(to_line(row) for row in rows))
    crashes = folder.with_name("crashes")
    crashes.mkdir(exist_ok=True)
    (crashes / f"{crash_at}.once").write_text(json.dumps({"word": "", "signal": int(signal.SIGKILL)}))
    environment = {**os.environ, "DATABASE_URL": database, "CHASKI_SPILL": str(folder)}
    environment["CHASKI_CRASH_FOLDER"] = str(crashes)
    command = [sys.executable, "-c", WORKER, str(given)]
    environment |= {"DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=ROOT, timeout=60, check=False).returncode


def here() -> str:
    """The database of this test."""
    found = connection.settings_dict
    host = found["HOST"] or found["OPTIONS"].get("host", "")
    return f"postgres://{found['USER']}@:{found['PORT'] or 5432}/{found['NAME']}?host={host}"


# -- a worker that dies


def test_what_a_worker_held_when_it_was_killed_during_an_outage_is_settled_by_the_next(
    shop: Caller, folder: Path, replay: Callable[[], int]
) -> None:
    rows = [settlement(claimed) for claimed in begun(shop, 3)]
    nowhere = f"postgres://nobody@127.0.0.1:{any_free()}/nothing"
    assert worker(folder, rows, database=nowhere, crash_at="after_spill") == -signal.SIGKILL
    assert {steps.message(row.id).status for row in rows} == {"queued"}
    assert replay() >= 1
    recorded = [row for row in rows if steps.message(row.id).status == "sent"]
    assert recorded, "at least the first batch was on the disk"
    assert {steps.message(row.id).provider_message_id for row in recorded} == {"SM1"}
    assert list(folder.iterdir()) == []


def test_a_worker_that_starts_settles_what_another_left_behind(shop: Caller, folder: Path) -> None:
    (claimed,) = begun(shop)
    left_behind(folder, [settlement(claimed)])
    assert worker(folder, [], database=here(), crash_at="after_replay") == -signal.SIGKILL
    assert steps.message(claimed.id).status == "sent"


def test_a_crash_between_the_commit_and_the_removal_of_the_file_changes_nothing_twice(
    shop: Caller, folder: Path, replay: Callable[[], int]
) -> None:
    first, second = begun(shop, 2)
    left_behind(folder, [settlement(first), settlement(second, steps.REFUSALS["not_sent"])])
    assert worker(folder, [], database=here(), crash_at="after_replay") == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 1, "it died before it could remove the file"
    before = list(Event.objects.values_list("message_id", "sequence", "status"))
    due = steps.pending(second.id).due_at  # type: ignore[union-attr]
    assert replay() == 2
    assert list(Event.objects.values_list("message_id", "sequence", "status")) == before
    assert steps.pending(second.id).due_at == due  # type: ignore[union-attr]
    assert set(Attempt.objects.values_list("late", flat=True)) == {None}, "the same once more is no late fact"
    assert list(folder.iterdir()) == []


# -- the recorder during an outage


class Outage:
    """A recorder whose database is away until ``back`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back = threading.Event()
        self.tried = threading.Semaphore(0)
        self.written: list[UUID] = []
        monkeypatch.setattr(Recorder, "_settle", lambda _self, rows: self.settle(rows))
        self.recorder = Recorder(lambda: 0)
        self.recorder._replay_at = time.monotonic() + 86_400  # its thread outlives the test

    def settle(self, rows: Sequence[Settlement]) -> None:
        self.tried.release()
        if not self.back.is_set():
            raise psycopg.OperationalError("connection refused")
        self.written += [row.id for row in rows]


def row(code: str = "x", detail: str = "") -> Settlement:
    """A settlement of nothing in the database."""
    now = steps.now()
    outcome = Outcome("not_sent", code, detail)
    return Settlement(uuid4(), 1, uuid4(), 1, now, outcome, Decision((Status.QUEUED,), due_at=now))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for ``condition``. Fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def spilled(folder: Path) -> list[UUID]:
    """The ids of the results that lie in the folder."""
    lines = [line for file in folder.glob("*.results") for line in file.read_bytes().splitlines()[1:]]
    return [of_line(line).id for line in lines]


def test_what_comes_while_the_database_is_away_is_on_the_disk_too_and_gives_no_place_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)
    rows, done = [row() for _ in range(5)], []
    outage.recorder.start()
    for each in rows:
        outage.recorder.put(Result(each, lambda each=each: done.append(each.id)))  # type: ignore[misc]
        outage.tried.acquire(timeout=10)
    until(lambda: len(spilled(folder)) == len(rows))
    assert done == [], "the windows stay full: what is in memory is bounded"
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]
    outage.back.set()
    until(lambda: len(done) == len(rows) and not list(folder.iterdir()))
    assert outage.written == [each.id for each in rows], "each once, in their order"


def test_a_database_that_answers_costs_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch)
    outage.back.set()
    outage.recorder._record([Result(row(), lambda: None)])
    assert not folder.exists()


def test_a_result_that_no_database_takes_is_set_aside_by_a_living_worker_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(*_: object) -> None:
        raise psycopg.errors.NumericValueOutOfRange("value out of range")

    monkeypatch.setattr(recording, "settle", settle)
    bad, recorder = row(), Recorder(lambda: 0)
    recorder._record([Result(bad, lambda: None)])
    recorder._connection.close()
    (file,) = folder.iterdir()
    kept = json.loads(file.read_text())
    assert (of_line(kept["line"]).id, kept["reason"]) == (bad.id, "NumericValueOutOfRange 22003")


def test_a_folder_that_cannot_be_written_costs_one_line_and_no_result(
    tmp_path: Path, settings: object, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    settings.CHASKI_SPILL = str(tmp_path / "file" / "spill")  # type: ignore[attr-defined]
    outage = Outage(monkeypatch)
    waits = iter(range(10))
    monkeypatch.setattr(Recorder, "_wait", lambda *_: outage.back.set() if next(waits) == 5 else None)
    rows = [row(), row()]
    outage.recorder._record([Result(each, lambda: None) for each in rows])
    assert outage.written == [each.id for each in rows]
    assert events == ["spill_not_written"]


def test_a_full_disk_leaves_no_half_line_and_is_tried_again(folder: Path, events: list[str]) -> None:
    spill, first, second = Spill(folder), row(), row()
    spill.keep([first])
    assert spill._file is not None
    size, limits = spill._file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))  # as a quota: part of a line, then an error
    try:
        spill.keep([second])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert spill._file.stat().st_size == size
    assert events == ["spill_not_written"]
    spill.keep([])
    assert spilled(folder) == [first.id, second.id]
    spill.clear()


# -- the lines


@pytest.mark.parametrize("outcome", [ACCEPTED, *steps.REFUSALS.values()])
def test_a_line_gives_back_what_was_decided(shop: Caller, outcome: Outcome) -> None:
    (claimed,) = begun(shop)
    before = settlement(claimed, outcome)
    after = of_line(to_line(before))
    assert replace(after, outcome=replace(after.outcome, detail=before.outcome.detail)) == before
    assert after.decision.reason == before.decision.reason


def test_a_line_gives_back_every_field() -> None:
    """Each of them differs from its default, so that one which is forgotten shows; a new field fails here first."""
    at = steps.now()
    outcome = Outcome("in_doubt", "timeout", "", "SM1", 2.5, at, True, True, at + timedelta(seconds=1))
    decision = Decision((Status.IN_DOUBT,), at, "operator", True, at + timedelta(seconds=2), 3, 1, 1, True, "why")
    before = Settlement(uuid4(), 4, uuid4(), 5, at, outcome, decision, at, 1, 2)
    for each in (before, outcome, decision):
        same = [f.name for f in fields(each) if f.default is not MISSING and getattr(each, f.name) == f.default]
        assert same in ([], ["detail", "unmapped", "rest_seconds"]), same
    after = of_line(to_line(before))
    assert replace(after, outcome=replace(after.outcome, detail="")) == before
    assert after.decision.reason == decision.reason


def test_a_line_names_nothing_that_the_release_before_does_not_know() -> None:
    """It runs beside this one and refuses such a line, so that its message would go out again."""
    line = json.loads(to_line(row()))
    known = {"error_class", "code", "detail", "provider_message_id", "retry_after", "until", "suppress"}
    known |= {"account_wide", "written_at"}
    assert set(line["outcome"]) <= known


def test_a_line_of_the_release_before_has_no_newer_moments(shop: Caller) -> None:
    line = json.loads(to_line(row()))
    del line["outcome"]["written_at"], line["decision"]["ask_at"]
    after = of_line(json.dumps(line).encode())
    assert (after.outcome.written_at, after.decision.ask_at) == (None, None)


def test_a_line_holds_nothing_that_a_provider_said(folder: Path) -> None:
    line = to_line(row(detail="the number +56912345678 is not valid"))
    assert b"56912345678" not in line


# -- orphans


def test_the_file_of_a_living_worker_is_left_alone(shop: Caller, folder: Path, replay: Callable[[], int]) -> None:
    (claimed,) = begun(shop)
    alive = Spill(folder)
    alive.keep([settlement(claimed)])
    assert replay() == 0
    assert len(list(folder.iterdir())) == 1
    assert steps.message(claimed.id).status == "queued"
    alive.clear()
    assert list(folder.iterdir()) == []


def test_a_database_that_is_away_leaves_every_file_as_it_is(
    shop: Caller, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claimed,) = begun(shop)
    file = left_behind(folder, [settlement(claimed)])
    before = file.read_bytes()
    away = EngineConnection()
    monkeypatch.setattr(away, "_open", lambda: psycopg.connect(f"host=127.0.0.1 port={any_free()}"))
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            replayed(Replay(folder, away))
    assert {each: each.read_bytes() for each in folder.iterdir()} == {file: before}


def test_a_database_that_goes_away_during_the_replay_has_nothing_set_aside(
    shop: Caller, folder: Path, replay: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (claimed,) = begun(shop)
    left_behind(folder, [settlement(claimed), row()])

    def fails(*_: object) -> None:
        raise psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "settle", fails)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replay()
    assert [each.suffix for each in folder.iterdir()] == [".results"]
    replay()
    assert steps.message(claimed.id).status == "sent"


def test_a_result_that_comes_after_the_sweep_is_late_and_still_settles_a_message_that_waits(
    shop: Caller, folder: Path, replay: Callable[[], int]
) -> None:
    (claimed,) = begun(shop)
    left_behind(folder, [settlement(claimed)])
    with steps.later(timedelta(seconds=steps.LEASE_SECONDS + 1)):
        steps.swept()
    assert steps.message(claimed.id).in_doubt_count == 1
    replay()
    assert steps.message(claimed.id).status == "sent"
    assert Attempt.objects.get().late["outcome"] == "accepted"
    assert steps.pending(claimed.id) is None, "it does not go again"


def test_an_old_file_withdraws_no_redelivery(shop: Caller, folder: Path, replay: Callable[[], int]) -> None:
    """What it says was recorded long ago; the message failed later and an operator wants it sent again."""
    (claimed,) = begun(shop)
    done = settlement(claimed)
    file = left_behind(folder, [done])
    kept = file.read_bytes()
    replay()
    file.write_bytes(kept)
    steps.receive(steps.message(claimed.id), ReceiptKind.UNDELIVERED)
    acts.redeliver(steps.message(claimed.id), actor="somebody")
    replay()
    assert steps.message(claimed.id).status == "queued"
    assert steps.pending(claimed.id) is not None


def test_two_attempts_of_one_message_in_one_file_are_settled_in_their_order(
    shop: Caller, folder: Path, replay: Callable[[], int]
) -> None:
    (first,) = begun(shop)
    refused = settlement(first, steps.REFUSALS["not_sent"])
    steps.record(first, steps.REFUSALS["not_sent"])
    with steps.later(timedelta(minutes=1)):
        (second,) = steps.claim(ids=[first.id])
        steps.begun([second])
    left_behind(folder, [refused, settlement(second)])
    assert replay() == 2
    assert steps.message(first.id).status == "sent"
    assert [each.status for each in Event.objects.order_by("sequence")].count("sending") == 2


def test_a_torn_last_line_is_kept_aside_and_harms_nothing(
    shop: Caller, folder: Path, replay: Callable[[], int], events: list[str]
) -> None:
    first, second = begun(shop, 2)
    file = left_behind(folder, [settlement(first)])
    torn = to_line(settlement(second))[:40]
    with file.open("ab") as out:
        out.write(torn)
    assert replay() == 1
    assert steps.message(first.id).status == "sent"
    assert [each.name for each in folder.iterdir()] == [file.with_suffix(".torn").name]
    assert file.with_suffix(".torn").read_bytes() == torn + b"\n"
    assert events == ["spill_line_torn", "spill_settled"]


def test_a_file_whose_owner_died_before_its_first_line_is_removed(folder: Path, replay: Callable[[], int]) -> None:
    folder.mkdir()
    (folder / "host-1-abc.results").touch()
    assert replay() == 0
    assert list(folder.iterdir()) == []


def test_what_the_database_never_takes_is_set_aside_with_its_reason_and_drags_nobody(
    shop: Caller, folder: Path, replay: Callable[[], int], events: list[str]
) -> None:
    good, nul = begun(shop, 2)
    bad = settlement(nul, Outcome("not_sent", "a\0b"))  # jsonb takes no NUL
    elsewhere = row()
    file = left_behind(folder, [bad, settlement(good), elsewhere])
    with file.open("ab") as out:
        out.write(b'{"of": "nobody"}\n')
    replay()
    assert steps.message(good.id).status == "sent"
    aside = [json.loads(line) for line in file.with_suffix(".rejected").read_text().splitlines()]
    reasons = {each["reason"] for each in aside}
    assert len(aside) == 3
    assert "this database knows no such attempt" in reasons
    assert any(reason.startswith("UntranslatableCharacter") for reason in reasons), reasons
    assert str(elsewhere.id) in "".join(each["line"] for each in aside)
    assert [each.suffix for each in folder.iterdir()] == [".rejected"]
    assert events[0] == "spill_lines_rejected"


def test_a_file_of_another_version_waits_for_code_that_reads_it(
    folder: Path, replay: Callable[[], int], events: list[str]
) -> None:
    folder.mkdir()
    file = folder / "host-1-abc.results"
    file.write_bytes(b'{"version": 2}\n{"what": "ever"}\n')
    assert replay() == 0
    assert file.exists()
    assert events == ["spill_not_settled"]


# -- the doctor


def spill_findings() -> list[Finding]:
    return list(diagnosis._spill())


def test_the_doctor_is_content_with_an_empty_folder_and_with_none(folder: Path) -> None:
    assert [finding.level for finding in spill_findings()] == [Level.OK]
    folder.mkdir()
    assert [finding.level for finding in spill_findings()] == [Level.OK]


def test_the_doctor_names_what_was_left_behind_and_not_the_file_of_a_living_worker(folder: Path) -> None:
    alive = Spill(folder)
    alive.keep([row()])
    assert [finding.level for finding in spill_findings()] == [Level.OK]
    orphan = left_behind(folder, [row()])
    spilling.set_aside(folder / "host-2.rejected", [(b"{}", "so it is")])
    texts = [finding.found for finding in spill_findings() if finding.level is Level.DEGRADED]
    assert len(texts) == 2
    assert str(orphan) in texts[0]
    assert "host-2.rejected" in texts[1]
    alive.clear()


def test_the_doctor_says_that_the_folder_of_workers_here_cannot_be_written(tmp_path: Path, settings: object) -> None:
    (tmp_path / "file").write_text("in the way")
    settings.CHASKI_SPILL = str(tmp_path / "file" / "spill")  # type: ignore[attr-defined]
    assert [finding.level for finding in spill_findings()] == [Level.OK], "no worker runs on this machine"
    with connection.cursor() as cursor:
        name = f"worker1@{os.uname().nodename}"
        cursor.execute("INSERT INTO heartbeat (name, kind, seen_at) VALUES (%s, 'worker', chaski_now())", [name])
    assert "cannot be written" in spill_findings()[0].found
