"""The file by which `manage.py` in another shell finds the running system."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from config import environment
from config.environment import Secrets

WRITTEN = {
    "CHASKI_ENV": "development",
    "DATABASE_URL": "postgres://chaski@:5432/chaski?host=%2Ftmp%2Fx",
    "CHASKI_BROKER_URL": "redis+socket:///tmp/v.sock?virtual_host=0",
    "CHASKI_CACHE_URL": "unix:///tmp/v.sock?db=1",
    "CHASKI_SECRET_KEY": "a=b=",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "not there yet" / "environment"
    environment.write(WRITTEN, file=file)
    return file


def test_what_was_written_is_loaded_as_it_was(file: Path) -> None:
    environ: dict[str, str] = {}
    assert environment.load(environ, file=file) == WRITTEN
    assert environ == WRITTEN


def test_only_its_owner_can_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["environment"]


def test_what_is_set_already_stays(file: Path) -> None:
    environ = {"CHASKI_SECRET_KEY": "mine"}
    assert "CHASKI_SECRET_KEY" not in environment.load(environ, file=file)
    assert environ["CHASKI_SECRET_KEY"] == "mine"


def test_who_names_a_database_gets_no_broker_of_another_system(file: Path) -> None:
    environ = {"DATABASE_URL": "postgres://elsewhere/x"}
    assert set(environment.load(environ, file=file)) == {"CHASKI_ENV", "CHASKI_SECRET_KEY"}
    assert environ["DATABASE_URL"] == "postgres://elsewhere/x"


def test_who_names_a_broker_gets_no_cache_of_another_one(file: Path) -> None:
    environ = {"CHASKI_BROKER_URL": "amqp://elsewhere"}
    assert "CHASKI_CACHE_URL" not in environment.load(environ, file=file)
    assert environ["DATABASE_URL"] == WRITTEN["DATABASE_URL"]


@pytest.mark.parametrize("other", ["test", "production"])
def test_nothing_of_it_is_for_another_kind_of_system(file: Path, other: str) -> None:
    environ = {"CHASKI_ENV": other}
    assert environment.load(environ, file=file) == {}
    assert environ == {"CHASKI_ENV": other}


def test_no_file_means_nothing_to_load(tmp_path: Path) -> None:
    assert environment.load({}, file=tmp_path / "none") == {}


def test_a_line_break_is_refused_instead_of_becoming_a_variable(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        environment.write({"A": "1\nDATABASE_URL=x"}, file=tmp_path / "environment")


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    first = Secrets(file)
    first.keep(DEMO_API_KEY="ck_1")
    second = Secrets(file)
    names = (
        "CHASKI_SECRET_KEY",
        "CHASKI_CREDENTIAL_KEYS",
        "ADMIN_PASSWORD",
        "WEBHOOK_SECRET",
        "DEMO_API_KEY",
    )
    assert [first[name] for name in names] == [second[name] for name in names]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Secrets(tmp_path / "others")["CHASKI_SECRET_KEY"] != first["CHASKI_SECRET_KEY"]


def test_the_credential_key_is_a_fernet_key(tmp_path: Path) -> None:
    assert Fernet(Secrets(tmp_path / "secrets")["CHASKI_CREDENTIAL_KEYS"])
