"""A real web server: gunicorn in its own session, ended by its process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import urllib3

from config.ports import any_free

ROOT = Path(__file__).parents[2]
WORKERS, THREADS = 2, 25


def database_url(name: str) -> str:
    """The URL of the database ``name`` on the server of the tests."""
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


class Server:
    """gunicorn with enough threads for fifty requests at once. A context manager."""

    def __init__(self, database: str, log: Path, *, workers: int = WORKERS) -> None:
        self.url = f"http://127.0.0.1:{any_free()}"
        self.log = log
        self._database = database
        self._workers = workers
        self.pool = urllib3.PoolManager(maxsize=60, block=False, retries=False, timeout=60.0)

    def __enter__(self) -> Server:
        size = ("--workers", str(self._workers), "--threads", str(THREADS), "--worker-class", "gthread")
        command = [sys.executable, "-m", "gunicorn", "config.wsgi:application", "--bind", urlsplit(self.url).netloc]
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, *size, "--no-control-socket", "--log-level", "warning"],
                cwd=ROOT,
                env={**os.environ, "DATABASE_URL": self._database, "CHASKI_LOG": "json"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_life()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.clear()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def request(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """One request."""
        return self.pool.request(method, self.url + path, **options)

    def memory(self) -> int:
        """Bytes of resident memory of the largest worker."""
        return max(child.memory_info().rss for child in self._children())

    def _children(self) -> Iterator[psutil.Process]:
        yield from psutil.Process(self._process.pid).children()

    def _await_life(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.request("GET", "/health/live").status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                time.sleep(0.05)
        raise AssertionError(f"the web server did not start: {self.log.read_text()}")
