"""`manage.py` for tests, without the seconds in which a new process loads Django: one has loaded it, and forks for each command.

Everything else is as in `config.management`: the same environment, arguments, output and exit codes. Run as a module it is that
process. What a test says about the start of a command belongs to `tests/commands`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

from config.management import Answer, Management, ManagementError


class ForkingManagement:
    """`manage.py` in ``folder``, seeing exactly ``environment``. Thread-safe; a context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._plain = Management(folder, environment)
        self._lock = threading.Lock()
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> ForkingManagement:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.communicate()  # the end of its input is its end

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,), variables: Mapping[str, str] | None = None) -> Answer:
        """As ``Management.run``. With ``variables``, or while another command runs, it takes a process of its own."""
        if variables or not self._lock.acquire(blocking=False):
            return self._plain.run(*arguments, codes=codes, variables=variables)
        try:
            answer, said = self._forked(arguments)
        finally:
            self._lock.release()
        if answer.code not in codes:
            raise ManagementError(arguments[0], (said or answer.text).strip())
        return answer

    def _forked(self, arguments: tuple[str, ...]) -> tuple[Answer, str]:
        if self._server is None:
            self._server = self._start()
        with tempfile.TemporaryDirectory(prefix="chaski-manage-") as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps([str(out), str(err), *arguments]) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            return Answer(code, out.read_text()), err.read_text()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            cwd=self._plain.folder,
            env=dict(self._plain.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def serve() -> None:
    """One command for each line, until there are no more; answers with the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    for line in sys.stdin:
        out, err, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            _run(out, err, arguments)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(out: str, err: str, arguments: list[str]) -> None:
    """In the child; never returns."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["manage.py", *arguments]
    os._exit(_code())


def _code() -> int:
    from manage import main

    try:
        main()
        return 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - the fork must end here, whatever it was
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
