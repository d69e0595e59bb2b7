"""Fixtures that tests of several packages share: a service with its key, accounts, a caller of the API, what a fault showed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import hypothesis
import pytest

import config.celery  # noqa: F401 - our Celery application is the current one, as in every process
from deliveries import lineage, pausing
from deliveries.lineage import Guard
from deliveries.models import Account
from tests.factories import Caller, make_account, make_caller
from tests.faults.evidence import Evidence, Row, row_of

#: What a property says is true on a busy machine too.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_rows: list[Row] = []


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """What was paused in the test before is not so here."""
    pausing.recent.forget()


@pytest.fixture(autouse=True)
def _no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that has seen nothing: each test has a database of its own, and that of the one before is no backup of it."""
    monkeypatch.setattr(lineage, "_guard", Guard(()))


@pytest.fixture
def shop(db: None) -> Caller:
    """The service of most tests."""
    return make_caller("shop")


@pytest.fixture
def other(db: None) -> Caller:
    """Another service, which must see nothing of the first."""
    return make_caller("other")


@pytest.fixture
def account(db: None) -> Callable[..., Account]:
    """Makes accounts: ``account("sms", "sandbox", "main")``."""
    return make_account


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
