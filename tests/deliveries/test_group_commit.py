"""What several threads want written at once goes together, and nobody pays for another's mistake."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DataError, OperationalError, transaction

from deliveries.postgresql.group_commit import GroupCommit
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Writer:
    """Writes numbers; the first write waits until ``go``, so that others gather meanwhile."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, numbers: Sequence[int]) -> list[str]:
        self.groups.append(list(numbers))
        self.begun.set()
        assert self.go.wait(20)
        if 13 in numbers:
            raise DataError("thirteen")
        if 99 in numbers:
            raise OperationalError("the connection is lost")
        if 666 in numbers:
            raise SystemExit
        if 7 in numbers:
            raise RuntimeError("can't start new thread")
        return [f"wrote {number}" for number in numbers]


def together(*numbers: int) -> tuple[Writer, list[str]]:
    """0 is written first and alone, ``numbers`` gather behind it; what each thread was told, in the order of its number."""
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit(writer)

    def told(number: int) -> str:
        try:
            return group.write(number)
        except (DataError, OperationalError, RuntimeError, SystemExit) as error:
            return type(error).__name__

    with ThreadPoolExecutor(len(numbers) + 1) as threads:
        first = threads.submit(told, 0)
        assert writer.begun.wait(20)
        others = [threads.submit(told, number) for number in numbers]
        wait_for(lambda: len(group._waiting) == len(numbers), 20, "all of them")
        writer.go.set()
        return writer, [each.result(20) for each in (first, *others)]


def test_who_comes_during_a_write_goes_with_the_next() -> None:
    writer, told = together(1, 2, 3)
    assert told == ["wrote 0", "wrote 1", "wrote 2", "wrote 3"]
    assert [sorted(group) for group in writer.groups] == [[0], [1, 2, 3]]


def test_one_that_cannot_be_written_spoils_no_other() -> None:
    writer, told = together(1, 13, 3)
    assert told == ["wrote 0", "wrote 1", "DataError", "wrote 3"]
    assert len(writer.groups) == 5


def test_a_database_that_is_away_is_asked_once_for_all() -> None:
    writer, told = together(1, 99, 3)
    assert told == ["wrote 0", *["OperationalError"] * 3]
    assert len(writer.groups) == 2


def test_what_fails_after_the_commit_is_not_written_again() -> None:
    writer, told = together(1, 7, 3)
    assert told == ["wrote 0", *["RuntimeError"] * 3]
    assert len(writer.groups) == 2


def test_nobody_waits_for_a_thread_that_was_ended() -> None:
    _, told = together(1, 666, 3)
    assert sorted(told[1:]) == ["Interrupted", "Interrupted", "SystemExit"]


def test_a_later_one_is_written_after_all_that() -> None:
    writer = Writer()
    writer.go.set()
    group: GroupCommit[int, str] = GroupCommit(writer)
    assert [group.write(number) for number in (1, 2)] == ["wrote 1", "wrote 2"]
    assert writer.groups == [[1], [2]]


def test_within_a_transaction_it_is_the_callers_alone() -> None:
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit(writer)
    holding = threading.Thread(target=group.write, args=(0,))
    holding.start()
    assert writer.begun.wait(20)
    with transaction.atomic():
        own = threading.Thread(target=writer.go.set)
        own.start()
        assert group.write(1) == "wrote 1"
    holding.join(20)
    own.join(20)
    assert writer.groups == [[0], [1]]
