"""One system for the whole matrix; after every test it is healed, and the ledger must balance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.evidence import Evidence, Row, row_of
from tests.faults.system import FaultSystem

_rows: list[Row] = []


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """The system, started once."""
    home: Path = tmp_path_factory.mktemp("faults")
    with FaultSystem(home) as system:
        yield system
        system.books_agree()


@pytest.fixture
def system(running: FaultSystem) -> Iterator[FaultSystem]:
    """The system, well at the beginning; healed and balanced at the end."""
    yield running
    running.heal()
    running.must_balance()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """What a test says that it saw, for docs/faults.md."""
    evidence = Evidence()
    yield evidence
    row = row_of(request.node, evidence)
    if row is not None and evidence.said:
        _rows.append(row)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was seen to the file that CHASKI_FAULTS_SEEN names."""
    target = os.environ.get("CHASKI_FAULTS_SEEN")
    if target and _rows and not hasattr(session.config, "workerinput"):
        Path(target).write_text("".join(json.dumps(asdict(row)) + "\n" for row in _rows))
