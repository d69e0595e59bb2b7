"""Everything that `bin/test` checks, in the order in which it fails fastest. Started by `bin/test`.

The tests run against an embedded PostgreSQL and Valkey of their own, in a folder that begins empty.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from config.embedded import EmbeddedPostgres, EmbeddedValkey, ServerStartError

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
#: Flags of ours that choose tests by marker; anything else goes to pytest as it is.
MARKERS = {"--faults": "faults", "--doubles": "doubles", "--browser": "browser"}
STATIC: tuple[tuple[str, ...], ...] = (
    (str(BIN / "ruff"), "check", "."),
    (str(BIN / "ruff"), "format", "--check", "."),
    (str(BIN / "mypy"),),
    (str(BIN / "lint-imports"),),
    (sys.executable, "manage.py", "check", "--fail-level", "WARNING"),
    (sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"),
    (sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn", "--file", os.devnull),
)


HELP = """usage: bin/test [--faults] [--doubles] [--browser] [pytest arguments]

Lint, types, import contracts, Django's checks and the whole test suite, on a PostgreSQL and a Valkey of their own.

  --faults    the whole fault matrix instead, the long rows too: processes and servers that die, hang and lie
  --doubles   the providers against independent test doubles (needs Node.js; PROVIDER_SPECS for Prism)
  --browser   the pages in Chromium

Anything else goes to pytest: `bin/test tests/deliveries -k retry -x`. DATABASE_URL and CHASKI_BROKER_URL, when set, are
used instead of the embedded servers."""


def main(arguments: Sequence[str]) -> int:
    """Run the checks; the result is the exit code of the first that fails."""
    if {"--help", "-h"} & set(arguments):
        print(HELP)
        return 0
    with tempfile.TemporaryDirectory(prefix="chaski-test-") as folder:
        home = Path(folder)
        try:
            with (
                EmbeddedPostgres(home / "postgres", log=home / "postgres.log") as postgres,
                EmbeddedValkey(home / "valkey", log=home / "valkey.log") as valkey,
            ):
                environment = {
                    **os.environ,
                    "CHASKI_ENV": "test",
                    "CHASKI_TIME_SCALE": "0.1",
                    "CHASKI_SPILL": str(home / "spill"),
                    "CHASKI_WITNESS": str(home / "witness"),
                    "DATABASE_URL": os.environ.get("DATABASE_URL") or postgres.url,
                    "CHASKI_BROKER_URL": os.environ.get("CHASKI_BROKER_URL") or valkey.url,
                }
                return run(environment, arguments)
        except ServerStartError as error:
            print(error, file=sys.stderr)
            return 1


def run(environment: dict[str, str], arguments: Sequence[str]) -> int:
    """The checks one after the other, each with its time."""
    for command in [*STATIC, pytest_command(arguments)]:
        name = " ".join([Path(command[0]).name, *command[1:]])
        started = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603
        print(
            f"{'ok  ' if code == 0 else 'FAIL'} {time.monotonic() - started:6.1f} s  {name}",
            file=sys.stderr,
            flush=True,
        )
        if code:
            return code
    return 0


def pytest_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """pytest with our flags turned into markers; what is thorough, doubles and the browser run only when asked for."""
    asked = [MARKERS[argument] for argument in arguments if argument in MARKERS]
    rest = [argument for argument in arguments if argument not in MARKERS]
    chosen = " or ".join(asked) if asked else "not thorough and not doubles and not browser"
    return (sys.executable, "-m", "pytest", "-q", "-m", chosen, "--durations=10", *rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
