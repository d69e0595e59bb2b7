"""Commands called in this process as `manage.py` calls them, with what they printed and how they ended."""

from __future__ import annotations

import json
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.core.management import CommandError, load_command_class


@dataclass(frozen=True, slots=True)
class Said:
    """The exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(name: str, *arguments: str) -> Said:
    """Call a command. Only the closing of the connection at its end is left out, as the test's transaction lives in it."""
    command = load_command_class("deliveries", name)
    command._called_from_command_line = True
    out, err, code = StringIO(), StringIO(), 0
    with redirect_stderr(err):
        try:
            options = vars(command.create_parser("manage.py", name).parse_args([str(each) for each in arguments]))
            command.execute(*options.pop("args", ()), **options, stdout=out, stderr=err)
        except CommandError as error:
            err.write(f"CommandError: {error}\n")
            code = error.returncode
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def refused(said: Said, *words: str) -> None:
    """One sentence, exit code 1 or 2, nothing for machines."""
    assert said.code in (1, 2), said
    assert said.out == ""
    last = said.err.strip().splitlines()[-1]
    assert "Traceback" not in said.err
    for word in words:
        assert word in last, last


def same_shape(example: Any, found: Any) -> bool:
    """Has ``found`` the members of ``example``? ``...`` as a name stands for any names."""
    if isinstance(example, dict):
        if "..." in example:
            return isinstance(found, dict) and all(
                isinstance(example["..."], str) or same_shape(example["..."], value) for value in found.values()
            )
        return set(example) == set(found) and all(same_shape(value, found[name]) for name, value in example.items())
    if isinstance(example, list):
        return isinstance(found, list) and all(same_shape(example[0], each) for each in found)
    return found is None or example is None or isinstance(found, type(example)) or isinstance(example, type(found))
