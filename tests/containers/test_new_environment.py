"""ops/new-environment: one file with a fresh secret for everything that docker-compose.yml asks for."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from config.variables import VARIABLES
from tests.containers.compose import FILE, INTERPOLATION, ROOT

COMMENTED = re.compile(r"^# ([A-Z][A-Z_]+)=", re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of ops/ in a folder with spaces."""
    place = tmp_path / "home of" / "ops"
    place.mkdir(parents=True)
    for name in ("new-environment", "environment.example"):
        shutil.copy(ROOT / "ops" / name, place)
    return place


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(folder / "new-environment"), *arguments], capture_output=True, text=True, check=False)


def values(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_it_gives_everything_that_compose_asks_for_and_no_two_files_are_alike(folder: Path) -> None:
    assert run(folder, "chaski.example.org").returncode == 0
    file = folder / "environment"
    given = values(file)
    required = {name for name, kind, _ in INTERPOLATION.findall(FILE.read_text()) if kind == ":?"}
    assert required == set(given)
    assert all(given.values())
    assert given["CHASKI_PUBLIC_URL"] == "https://chaski.example.org"
    assert given["CHASKI_ALLOWED_HOSTS"].split(",") == ["chaski.example.org", "web"]
    Fernet(given["CHASKI_CREDENTIAL_KEYS"])
    assert len(given["CHASKI_SECRET_KEY"]) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    file.unlink()
    run(folder, "chaski.example.org")
    secret = [variable.name for variable in VARIABLES if variable.secret and variable.name in given]
    again = values(file)
    for name in (*secret, "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "FLOWER_BASIC_AUTH"):
        assert given[name] != again[name]


def test_it_never_replaces_a_file(folder: Path) -> None:
    run(folder, "chaski.example.org")
    before = (folder / "environment").read_text()
    refused = run(folder, "chaski.example.org")
    assert refused.returncode == 1
    assert "left as it is" in refused.stderr
    assert (folder / "environment").read_text() == before


@pytest.mark.parametrize("host", ["", "https://chaski.example.org", "chaski.example.org/x", "--help"])
def test_it_wants_a_host_name(folder: Path, host: str) -> None:
    refused = run(folder, host)
    assert refused.returncode == 1
    assert "chaski.example.com" in refused.stderr or "host name" in refused.stderr
    assert not (folder / "environment").exists()


def test_the_example_shows_what_compose_has_a_default_for() -> None:
    optional = {name for name, kind, _ in INTERPOLATION.findall(FILE.read_text()) if kind == ":-"}
    assert set(COMMENTED.findall((ROOT / "ops" / "environment.example").read_text())) == optional
