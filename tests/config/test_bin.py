"""`bin/up` and `bin/test` where something is missing, was interrupted, or happens twice at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTED = "import sys; print('started with', sys.argv[1:])\n"

#: An interpreter that lacks what `lacks` names, and is otherwise our own.
SHIM = """#!/bin/sh
case "$2" in
    *ensurepip*) [ "{lacks}" != ensurepip ] || exit 1 ;;
    *SOABI*) [ "{lacks}" != glibc ] || {{ echo cpython-313-x86_64-linux-musl; exit 0; }} ;;
esac
exec "{python}" "$@"
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that needs nothing installed, in a folder with spaces; an installation was cut off."""
    root = tmp_path_factory.mktemp("home of") / "a repository"
    shutil.copytree(ROOT / "bin", root / "bin")
    (root / "config").mkdir()
    for name in ("up", "checks"):
        (root / "config" / f"{name}.py").write_text(STARTED)
    for name in ("requirements.txt", "requirements-dev.txt"):
        (root / name).write_text("# nothing\n")
    (root / ".venv").mkdir()
    (root / ".venv" / "half a package").touch()
    (root / ".chaski").mkdir()
    (root / ".chaski" / "venv-unfinished").touch()
    return root


def start(root: Path, command: str = "up", *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start it from another folder, with our own interpreter unless told otherwise."""
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(root / "bin" / command), *arguments],
        cwd="/",
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def run(root: Path, command: str = "up", *arguments: str, **variables: str) -> tuple[int, str, str]:
    with start(root, command, *arguments, **variables) as process:
        shown, said = process.communicate(timeout=60)
        return process.returncode, shown, said


def forget(root: Path) -> None:
    """As after a change of the requirements."""
    for mark in (root / ".venv").glob("installed-*"):
        mark.unlink()


@pytest.fixture
def prepared(repository: Path) -> Path:
    run(repository)
    return repository


def test_an_interrupted_first_run_is_made_anew_and_speaks_at_once(repository: Path) -> None:
    begun = time.monotonic()
    with start(repository, "up", "--once", "two words") as process:
        assert process.stderr
        assert "preparing .venv" in process.stderr.readline()
        assert time.monotonic() - begun < 3
        shown, said = process.communicate(timeout=60)
    assert shown == "started with ['--once', 'two words']\n"
    assert ".venv is ready" in said
    assert not (repository / ".venv" / "half a package").exists()


def test_the_next_run_installs_nothing(prepared: Path) -> None:
    assert run(prepared, "up", "x") == (0, "started with ['x']\n", "")


def test_two_at_once_install_once_what_the_tests_need_besides(prepared: Path) -> None:
    with start(prepared, "test", "-k", "x") as one, start(prepared, "test") as other:
        shown, said = one.communicate(timeout=60)
        said += other.communicate(timeout=60)[1]
    assert (one.returncode, other.returncode, shown) == (0, 0, "started with ['-k', 'x']\n")
    assert said.count(".venv is ready") == 1


def test_a_machine_without_python_is_told_how_to_get_it(repository: Path) -> None:
    forget(repository)
    code, shown, said = run(repository, PYTHON="/nonexistent/python")
    assert (code, shown) == (1, "")
    assert said.startswith("Chaski: no Python 3.11 or newer (looked for /nonexistent/python); install one with: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("lacks", "told"), [("ensurepip", "lacks the modules venv and ensurepip"), ("glibc", "built on musl")]
)
def test_a_python_that_cannot_do_it_is_named_with_the_remedy(
    repository: Path, tmp_path: Path, lacks: str, told: str
) -> None:
    forget(repository)
    shim = tmp_path / "python3.13"
    shim.write_text(SHIM.format(lacks=lacks, python=sys.executable))
    shim.chmod(0o755)
    code, shown, said = run(repository, PYTHON=str(shim))
    assert (code, shown, said.count("\n")) == (1, "", 1)
    assert told in said
    assert "install" in said or "docs/how-to/deploy.md" in said


def test_without_a_network_it_says_so_instead_of_what_pip_says(repository: Path) -> None:
    requirements = repository / "requirements.txt"
    requirements.write_text(f"chaski-needs-a-network==1.0 --hash=sha256:{0:064}\n")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "0"}
    code, shown, said = run(repository, **nowhere, PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="1")
    requirements.write_text("# nothing\n")
    assert (code, shown) == (1, "")
    assert "could not reach its package index" in said.splitlines()[-1]
