"""Settings that are wrong stop the process with a sentence, which names them and shows no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import variables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [("DATABASE_URL", "mysql://u:sekret@h/d"), ("CHASKI_BROKER_URL", "foo://u:sekret@h")],
)
def test_a_wrong_secret_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{name} is wrong: it must begin with") as refused:
        variables.read({name: value})
    assert "sekret" not in str(refused.value)


def test_what_is_no_secret_is_shown() -> None:
    with pytest.raises(ImproperlyConfigured, match="CHASKI_ENV='prod' is wrong"):
        variables.read({"CHASKI_ENV": "prod"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"CHASKI_ENV": "prod"}, "CHASKI_ENV='prod' is wrong"),
        ({"CHASKI_ENV": "production"}, "needs a value of its own for"),
        (
            {"CHASKI_ENV": "test", "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing"},
            "The database does not answer",
        ),
    ],
)
def test_manage_py_says_in_a_sentence_what_is_wrong(given: dict[str, str], told: str) -> None:
    command = [sys.executable, "manage.py", "migrate", "--check"]
    environment = {"PATH": os.environ["PATH"], **given}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
