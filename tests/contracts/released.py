"""The release that the code here must live beside while it goes out: its tree, and what it left on the wire.

``COMMIT`` is the one place that names it. After a release: set it, and run `.venv/bin/python -m tests.contracts.record`.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "e5a17ff"
#: What publishers of that release put on the broker, and its `tasks.lock.json`.
RECORDED = Path(__file__).with_name("recorded") / COMMIT


def tree(folder: Path) -> Path:
    """The files of the release, unpacked in ``folder``. Fails the test where the history is not there."""
    made = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        pytest.fail(
            f"the history holds no {COMMIT}, the released commit (a shallow clone?): {made.stderr.decode().strip()};"
            " `git fetch --unshallow` gets it"
        )
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
