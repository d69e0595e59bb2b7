"""One system for the whole matrix; after every test it is healed, and the ledger must balance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.system import FaultSystem
from tests.processes.system import Tenant


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
