"""The benchmark of the drain from its command line to its JSON, on real servers and workers. No time is asserted.

Takes about a minute: `bin/test tests/benchmarks -m thorough`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The servers of the tests are not those of the benchmark, which starts its own.
OURS = ("DATABASE_URL", "CHASKI_", "DJANGO_SETTINGS_MODULE")


@pytest.mark.thorough
@pytest.mark.processes
def test_a_small_drain_is_verified_and_reported(tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "drain", "--pairs", "1", "--messages", "200", "--json", str(target)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(target.read_text())
    by_key = {finding["key"]: finding for finding in found["findings"]}
    assert {"S1", "S8"} <= set(by_key)
    for finding in by_key.values():
        assert finding["figure"] > 0
        assert finding["verdict"] in {"goal", "floor", "missed"}
        assert len(finding["per_pair"]) == 1
    assert found["machine"]["fsync"] == found["machine"]["synchronous_commit"] == "on"
