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
from tests.processes.system import Tenant

_rows: list[Row] = []


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """The system, started once."""
    home: Path = tmp_path_factory.mktemp("faults")
    with FaultSystem(home) as system:
        yield system
        system.books_agree()


@pytest.fixture(scope="session")
def shop(running: FaultSystem) -> Tenant:
    """One service for the rows: a webhook account that repeats, one named ``hold`` that holds, and SMS with receipts.

    Its webhooks bring no receipts, which would settle a doubt before the lease ends.
    """
    made = running.new_service(running.webhook(), running.twilio())
    channel, provider, *options = running.webhook()
    given = [f"--option={option}" for option in options]
    held = ("--in-doubt", "hold", "--priority", "9")
    running.manage.run("account", "create", channel, provider, "hold", "--service", made.name, *given, *held, "--json")
    return made


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
