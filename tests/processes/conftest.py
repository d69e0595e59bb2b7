"""One running system for all tests of this folder: starting it costs ten seconds, a service of one's own costs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.system import System


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Everything runs; what a test kills is up again when the test ends."""
    home: Path = tmp_path_factory.mktemp("system")
    with System(home) as running:
        yield running
