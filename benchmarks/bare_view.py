"""The yardstick of single requests: ``benchmarks.peers.bare_view`` under the gunicorn command line of production."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Self

from benchmarks import load
from benchmarks.processes import ROOT, Running
from benchmarks.rows import row
from benchmarks.run import Stage
from benchmarks.subject import inside
from benchmarks.verify import Unsound
from config import local, processes
from config.ports import any_free

DATABASE = "bare_view"


class BareView:
    """The web process, started by ``with``."""

    def __init__(self, on: Stage) -> None:
        self._on = on
        self._port = any_free()
        given = {"DATABASE_URL": on.servers.database(DATABASE), "PYTHONPATH": str(ROOT)}
        given["DJANGO_SETTINGS_MODULE"] = "benchmarks.peers.bare_view.settings"
        self._environment = {**local.for_children({}), **given}
        web = processes.web(f"127.0.0.1:{self._port}")
        command = tuple(word.replace("config.wsgi", "benchmarks.peers.bare_view.wsgi") for word in web.command)
        logs = on.home / "log" / DATABASE
        bare = replace(web, command=command)
        self._running = Running([bare], self._environment, broker="memory://", logs=logs, port=self._port)

    def __enter__(self) -> Self:
        self._on.servers.create(DATABASE)
        inside(self._environment, "benchmarks.peers.migrate")
        self._running.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.__exit__(*exc_info)

    def post(self, count: int, connections: int) -> float:
        """Requests per second, every row of them found in the database afterwards."""
        url = f"http://127.0.0.1:{self._port}/messages"
        before = self._count()
        calls = [
            load.request(url, json.dumps(row(number)).encode(), {"Content-Type": "application/json"})
            for number in range(count)
        ]
        self._on.servers.settle(DATABASE)
        answers = load.send(url, calls, connections=connections)
        if answers.statuses != Counter({202: count}) or self._count() - before != count:
            raise Unsound(f"{url}: answers {dict(answers.statuses)} to {count} requests")
        return count / answers.seconds

    def _count(self) -> int:
        return int(self._on.servers.query("SELECT count(*) FROM sms", database=DATABASE)[0][0])
