"""Witnesses keep the highest count, survive what crashes leave behind, and give no answer where they have none."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from deliveries.lineage import Guard
from deliveries.witnesses import KEY, REMEMBERED, FileWitness, Unreadable, ValkeyWitness

ONE = UUID(int=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "witness"


def test_valkey_remembers_the_highest_count(valkey: ValkeyWitness) -> None:
    """Two relays count, and the one that counted first may be the last to say so."""
    assert valkey.known() == {}
    valkey.saw(ONE, 7)
    valkey.saw(ONE, 3)
    valkey.saw(UUID(int=2), 1)
    assert valkey.known() == {ONE: 7, UUID(int=2): 1}


def test_something_else_in_its_place_in_valkey_is_no_answer(valkey: ValkeyWitness) -> None:
    valkey._client.zadd(KEY, {"somebody's": 3})
    with pytest.raises(Unreadable, match="is not ours"):
        valkey.known()


def test_a_file_remembers_the_highest_count_and_not_every_lineage(path: Path) -> None:
    file = FileWitness(path)
    for number in range(REMEMBERED + 5):
        file.saw(UUID(int=number), 7)
    file.saw(UUID(int=24), 3)
    assert file.known()[UUID(int=24)] == 7
    assert UUID(int=0) not in file.known()
    assert len(json.loads(path.read_text())) == REMEMBERED
    assert [found.name for found in path.parent.iterdir()] == ["witness"]


def test_a_file_that_is_not_there_knows_nothing(path: Path) -> None:
    assert FileWitness(path).known() == {}


@pytest.mark.parametrize(
    "torn",
    [b"", b"{", b"\0\0\0\0", b"\xff", b"[]", b"null", b"7", b'{"a": 1}', b'{"%s": null}' % str(ONE).encode()],
)
def test_a_file_that_is_no_record_is_no_answer_and_is_made_anew(torn: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(torn)
    file = FileWitness(path)
    with pytest.raises(Unreadable, match="no record of counts"):
        file.known()
    file.saw(ONE, 3)
    assert file.known() == {ONE: 3}


def test_an_unreadable_file_counts_as_away_until_it_can_be_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    guard = Guard((FileWitness(path),))
    guard.ask()
    assert not guard._heard
    path.write_text(json.dumps({str(ONE): 5}))
    guard.ask()
    assert guard._known == {ONE: 5}


def test_processes_of_one_pid_in_two_containers_write_one_file_without_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for them: what they share is the folder and the pid."""
    monkeypatch.setattr(os, "getpid", lambda: 7)

    def write(_: int) -> None:
        for counter in range(100):
            FileWitness(path).saw(ONE, counter)
            assert FileWitness(path).known()[ONE] <= counter + 100

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [found.name for found in path.parent.iterdir()] == ["witness"]


def test_a_count_is_on_the_disk_before_it_takes_the_place_of_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        done.append("fsync")
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        done.append("replace")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    FileWitness(path).saw(ONE, 1)
    assert done == ["fsync", "replace"]


def test_a_full_disk_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileWitness(path).saw(ONE, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        FileWitness(path).saw(ONE, 2)
    assert FileWitness(path).known() == {ONE: 1}
    assert [found.name for found in path.parent.iterdir()] == ["witness"]
