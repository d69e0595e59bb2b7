"""The ledger is a test of Chaski; here it is tested itself: it must find fault with builds that are broken on purpose.

Each goes through something that the code as it is goes through too, after which the ledger must find nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.builds import BUILDS, FOLDER, BuiltSystem, search_path
from tests.processes.system import wait_for

real = [pytest.mark.faults, pytest.mark.processes, pytest.mark.thorough]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltSystem]:
    """The code as it is, for all scenarios one after the other."""
    home: Path = tmp_path_factory.mktemp("sound")
    with BuiltSystem(home) as system:
        yield system


@pytest.mark.parametrize("name", [pytest.param(name, marks=real) for name in BUILDS])
def test_the_ledger_finds_nothing_wrong_with_the_sound_build(name: str, sound: BuiltSystem) -> None:
    sound.go_through(BUILDS[name].scenario)
    wait_for(lambda: not sound.violations(), 20, "a balanced ledger")
    assert sound.found() == {}, sound.log()


@pytest.mark.parametrize("name", [pytest.param(name, marks=real) for name in BUILDS])
def test_the_ledger_finds_what_is_wrong_with_a_broken_build(name: str, tmp_path: Path) -> None:
    with BuiltSystem(tmp_path, name) as system:
        system.go_through(BUILDS[name].scenario)
        found = system.found()
        assert found.keys() >= BUILDS[name].words, f"{found}\n{system.log()}"
        assert set().union(*found.values()) >= system.unfinished(), "what came to no end is named"


def test_each_broken_build_has_its_scenario() -> None:
    assert {file.parent.name for file in FOLDER.glob("*/sitecustomize.py")} == set(BUILDS)


@pytest.mark.parametrize("name", BUILDS)
def test_each_build_is_broken_where_it_says(name: str) -> None:
    """A process of a build ends before its first line when the text that is to be another one is not there."""
    begun = subprocess.run(
        [sys.executable, "-c", ""],
        env={**os.environ, "PYTHONPATH": search_path(name)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert begun.returncode == 0, begun.stderr
    assert not begun.stderr
