"""Old and new processes understand each other: the tasks' lock file, and what released publishers left on the wire."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from chaski.vocabulary import Lane
from config.celery import app
from deliveries import task_contract
from deliveries.doorbell import Bell
from deliveries.task_contract import Argument, Contract, Signature, breaks
from tests.commands.shell import run
from tests.contracts.released import RECORDED

app.loader.import_default_modules()
NOW = task_contract.of(app)
RELEASED = task_contract.read(RECORDED / task_contract.LOCK.name)
WIRE = json.loads((RECORDED / "wire.json").read_text())


def test_the_lock_file_says_what_the_code_takes() -> None:
    said = run("tasklock", "--check")
    assert said.code == 0, said.err


def test_nothing_breaks_processes_of_the_released_version() -> None:
    assert list(breaks(RELEASED, NOW)) == []


def called(task: dict[str, str]) -> tuple[str, list[Any], dict[str, Any]]:
    """The name and the arguments of what lay on the broker."""
    raw = json.loads(task["raw"])
    args, kwargs, _ = json.loads(base64.b64decode(raw["body"]))
    return raw["headers"]["task"], args, kwargs


def test_the_recording_holds_bells_with_ids_bare_bells_and_periodic_work() -> None:
    found = [called(task) for task in WIRE]
    assert {name for name, _, _ in found} >= {"deliver.sms", "deliver.email", "chaski.maintain"}
    assert {bool(kwargs["ids"]) for name, _, kwargs in found if name.startswith("deliver.")} == {True, False}
    assert {task["queue"] for task in WIRE} == {"urgent", "normal", "bulk", "control"}


@pytest.mark.parametrize("task", WIRE, ids=lambda task: f"{task['queue']}-{called(task)[0]}")
def test_what_released_publishers_sent_fits_the_tasks_here(task: dict[str, str]) -> None:
    name, args, kwargs = called(task)
    assert name in app.tasks
    if not name.startswith("celery."):
        assert NOW.tasks[name].unfit(args, kwargs) == ""
    assert task["queue"] in NOW.queues


@pytest.mark.parametrize("bell", [Bell("sms", Lane.URGENT, ("a",)), Bell("email", Lane.BULK, (), 1000, 12.5)])
def test_what_is_rung_here_fits_the_released_tasks(bell: Bell) -> None:
    assert RELEASED.tasks[f"deliver.{bell.channel}"].unfit([], bell.arguments()) == ""
    assert str(bell.lane) in RELEASED.queues


def test_periodic_work_fits_the_released_tasks() -> None:
    for entry in app.conf.beat_schedule.values():
        if not entry["task"].startswith("celery."):
            assert RELEASED.tasks[entry["task"]].unfit([], entry.get("kwargs", {})) == ""
        assert entry["options"]["queue"] in RELEASED.queues


CHANNEL = Argument("channel", "keyword_only")
IDS = Argument("ids", "keyword_only", "()")
MORE = Argument("unknown", "var_keyword")


def a_task(*arguments: Argument, version: int = 2) -> Signature:
    return Signature(version, {argument.name: argument for argument in arguments})


OLD = Contract({"deliver.sms": a_task(CHANNEL, IDS, MORE), "tidy": a_task(CHANNEL)}, ("normal", "slow"))


def with_sms(*arguments: Argument, version: int = 2) -> Contract:
    return replace(OLD, tasks={**OLD.tasks, "deliver.sms": a_task(*arguments, version=version)})


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (replace(OLD, tasks={"tidy": a_task(CHANNEL)}), "Task deliver.sms is gone"),
        (replace(OLD, tasks={"tidy": a_task(CHANNEL), "send.sms": a_task(CHANNEL)}), "Task deliver.sms is gone"),
        (with_sms(CHANNEL, MORE), "lost its argument ids"),
        (with_sms(CHANNEL, IDS), "lost its argument unknown"),
        (with_sms(CHANNEL, replace(IDS, default=None), MORE), "ids lost its default"),
        (with_sms(CHANNEL, IDS, Argument("shard", "keyword_only"), MORE), "shard has no default"),
        (with_sms(CHANNEL, replace(IDS, kind="positional_only"), MORE), "ids was keyword_only and is positional_only"),
        (with_sms(CHANNEL, IDS, MORE, version=1), "went back from 2 to 1"),
        (
            replace(OLD, tasks={**OLD.tasks, "tidy": a_task(CHANNEL, Argument("far", "keyword_only", "1"))}),
            "refuse the new argument far",
        ),
        (replace(OLD, queues=("normal",)), "Queue slow is gone"),
    ],
)
def test_what_breaks_old_processes_is_named_with_what_to_do(new: Contract, says: str) -> None:
    found = list(breaks(OLD, new))
    assert len(found) == 1, found
    assert says in found[0]
    assert ": " in found[0], "it says what to do"


@pytest.mark.parametrize(
    "new",
    [
        with_sms(CHANNEL, IDS, Argument("shard", "keyword_only", "0"), MORE),
        with_sms(CHANNEL, IDS, MORE, version=3),
        with_sms(replace(CHANNEL, default="'sms'"), replace(IDS, default="[]"), MORE),
        replace(OLD, tasks={**OLD.tasks, "deliver.fax": a_task(CHANNEL, MORE)}, queues=("normal", "slow", "more")),
    ],
)
def test_what_old_processes_can_live_with_breaks_nothing(new: Contract) -> None:
    assert list(breaks(OLD, new)) == []


def an_app(*tasks: Callable[..., None]) -> Celery:
    """An application with ``tasks`` alone."""
    made = Celery("other", set_as_current=False)
    made.conf.task_queues = [Queue("normal")]
    for task in tasks:
        made.task(name=f"x.{task.__name__}")(task)
    return made


def narrow(channel: str) -> None: ...


def wide(channel: str, lane: str = "normal", *, more: int = 1) -> None: ...


def test_the_file_holds_everything_that_is_compared(tmp_path: Path) -> None:
    contract = task_contract.of(an_app(narrow, wide))
    file = tmp_path / "tasks.lock.json"
    file.write_text(task_contract.text(contract))
    assert task_contract.read(file) == contract
    assert contract.tasks["x.wide"].unfit(["sms"], {}) == ""
    assert "channel" in contract.tasks["x.wide"].unfit([], {"lane": "bulk"})
    assert "far" in contract.tasks["x.wide"].unfit(["sms"], {"far": 1})


def test_a_breaking_change_is_not_written_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "tasks.lock.json"
    monkeypatch.setattr(task_contract, "LOCK", lock)
    gone = replace(NOW, tasks={**NOW.tasks, "deliver.fax": a_task(CHANNEL)})
    lock.write_text(task_contract.text(gone))
    for flags in ((), ("--check",)):
        said = run("tasklock", *flags)
        assert said.code == 1
        assert "deliver.fax is gone" in said.err
        assert "--breaking" in said.err
        assert lock.read_text() == task_contract.text(gone)
    assert run("tasklock", "--breaking").code == 0
    assert task_contract.read(lock) == NOW


def test_a_change_that_breaks_nothing_asks_for_the_file_to_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "tasks.lock.json"
    monkeypatch.setattr(task_contract, "LOCK", lock)
    fewer = {name: task for name, task in NOW.tasks.items() if name != "deliver.sms"}
    lock.write_text(task_contract.text(replace(NOW, tasks=fewer)))
    said = run("tasklock", "--check")
    assert said.code == 1
    assert "nothing breaks: write it again with `manage.py tasklock`" in said.err
    assert run("tasklock").code == 0
    assert run("tasklock", "--check").code == 0
