"""Calls `manage.py` as a person would, for `bin/up`: the same commands, the same JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINES = 15  # of what a failed command said are enough


class ManagementError(Exception):
    """A management command failed; the message ends with what it said, ``said`` is all of that."""

    def __init__(self, command: str, said: str) -> None:
        end = "\n".join(said.splitlines()[-LINES:])
        super().__init__(f"manage.py {command} failed:\n{end}")
        self.said = said


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended and what it wrote to stdout."""

    code: int
    text: str

    @property
    def document(self) -> Any:
        """What a command with ``--json`` printed."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Management:
    """`manage.py` in ``folder``, seeing exactly ``environment``."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,), variables: Mapping[str, str] | None = None) -> Answer:
        """Run it to its end, with ``variables`` added for this call.

        Raises `ManagementError` for an exit code that is not in ``codes``.
        """
        done = subprocess.run(  # noqa: S603 - an argument list, never a shell
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in codes:
            raise ManagementError(arguments[0], (done.stderr or done.stdout).strip())
        return Answer(done.returncode, done.stdout)
