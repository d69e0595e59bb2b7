"""The supervisor against crashes, stubborn processes and its own violent end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import processes, supervisor
from config.embedded import EmbeddedValkey
from config.ports import any_free
from config.processes import Process
from config.supervisor import Supervisor

ROOT = Path(__file__).parents[2]

#: Starts a child of its own, as gunicorn does, writes both process ids, and waits.
FAMILY = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("family", os.getpid(), child.pid, flush=True)
signal.pause()
"""
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", os.getpid(), flush=True)
while True: signal.pause()
"""
POLITE = """
import signal, sys, time
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("here", flush=True)
while True: signal.pause()
"""
APPLICATION = """
import os
print("web", os.getppid(), os.getpid(), flush=True)
def application(environ, start_response): ...
"""
OWNER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts jobs in the background has it ignored
from pathlib import Path
from config import processes
from config.supervisor import Supervisor
folder, stubborn, bind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
show = lambda name, line: print(name, line, flush=True)
with Supervisor(dict(os.environ), folder=folder, logs=folder, show=show) as running:
    running.start(processes.Process("stubborn", ("python", "-c", stubborn), grace_seconds=0.5))
    running.start(processes.web(bind))
    signal.pause()
"""


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Lines:
    """What the supervisor showed."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            self._lines.append(f"{name} {line}")

    def matching(self, pattern: str) -> list[re.Match[str]]:
        with self._lock:
            return [found for line in self._lines if (found := re.search(pattern, line))]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def running(tmp_path: Path, lines: Lines) -> Iterator[Supervisor]:
    environment = {"PATH": os.defpath, "SHOWN": "to the processes"}
    with Supervisor(environment, folder=tmp_path, logs=tmp_path / "log", show=lines) as running:
        yield running


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.05)


def script(name: str, text: str, **more: object) -> Process:
    return Process(name, ("python", "-c", text), **more)  # type: ignore[arg-type]


def test_a_process_sees_exactly_the_environment_given(running: Supervisor, lines: Lines) -> None:
    running.start(script("env", "import os; print(sorted(os.environ))"))
    until(lambda: lines.matching(r"env \['(LC_CTYPE', ')?PATH', 'SHOWN'\]"))


def test_each_line_is_shown_with_its_name_and_kept_in_a_file(running: Supervisor, lines: Lines, tmp_path: Path) -> None:
    running.start(script("polite", POLITE))
    until(lambda: lines.matching("^polite here$"))
    assert (tmp_path / "log" / "polite.log").read_text() == "here\n"


@pytest.mark.usefixtures("short_pauses")
def test_a_killed_process_is_started_again_and_its_children_are_not_left(running: Supervisor, lines: Lines) -> None:
    child = running.start(script("family", FAMILY))
    until(lambda: lines.matching("family (\\d+) (\\d+)$"))
    first, grandchild = (int(each) for each in lines.matching("family (\\d+) (\\d+)$")[0].groups())
    child.popen.kill()
    until(lambda: len(lines.matching("family (\\d+) (\\d+)$")) == 2)
    assert lines.matching("family was ended by SIGKILL; starting it again")
    assert child.running
    assert child.popen.pid != first
    until(lambda: not alive(grandchild))


def test_the_pause_before_a_start_doubles_up_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    backoff = supervisor.Backoff()
    assert [backoff.pause() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.started()
    now = 61.0
    assert backoff.pause() == 1


def test_at_the_end_everybody_is_asked_stage_by_stage(tmp_path: Path, lines: Lines) -> None:
    with Supervisor({}, folder=tmp_path, logs=tmp_path, show=lines) as running:
        for name, stage in (("providers", 2), ("worker", 1), ("web", 0)):
            running.start(script(name, POLITE, stage=stage))
        until(lambda: len(lines.matching(" here$")) == 3)
    until(lambda: len(lines.matching(" bye$")) == 3)
    assert [each.string for each in lines.matching(" bye$")] == ["web bye", "worker bye", "providers bye"]


def test_who_does_not_end_in_time_is_killed(tmp_path: Path, lines: Lines) -> None:
    with Supervisor({}, folder=tmp_path, logs=tmp_path, show=lines) as running:
        child = running.start(script("stubborn", STUBBORN, grace_seconds=0.2))
        until(lambda: lines.matching("deaf"))
    assert child.popen.returncode == -signal.SIGKILL
    assert lines.matching("stubborn did not end within 0 s; killed")


@pytest.mark.usefixtures("short_pauses")
def test_one_that_was_ended_on_purpose_stays_away(running: Supervisor, lines: Lines) -> None:
    child = running.start(script("polite", POLITE))
    other = running.start(script("other", "raise SystemExit(3)"))
    until(lambda: lines.matching("polite here"))
    running.end("polite")
    seen = other.popen
    until(lambda: other.popen is not seen)  # the watcher has looked at everybody meanwhile
    assert not child.running
    assert not lines.matching("polite .*starting it again")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_however_the_supervisor_ends_nobody_is_left(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").touch()  # stands before the real one, as the folder does
    (tmp_path / "config" / "wsgi.py").write_text(APPLICATION)
    command = [sys.executable, "-c", OWNER, str(tmp_path), STUBBORN, f"127.0.0.1:{any_free()}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout
        shown = [owner.stdout.readline() for _ in ("stubborn", "a web worker", "another web worker")]
        found = {int(each) for each in re.findall(r"\b\d+\b", " ".join(shown))}
        assert len(found) == 4  # with gunicorn itself
        owner.send_signal(number)
        until(lambda: not any(alive(process) for process in found))


@pytest.mark.usefixtures("short_pauses")
def test_a_dead_embedded_server_is_brought_back(tmp_path: Path, lines: Lines) -> None:
    with (
        EmbeddedValkey(tmp_path / "valkey", log=tmp_path / "valkey.log") as server,
        Supervisor({}, folder=tmp_path, logs=tmp_path, show=lines, servers=[server]),
    ):
        before = server.process.pid
        server.process.kill()
        until(lambda: server.running and server.process.pid != before)
    assert lines.matching("Valkey was ended by SIGKILL; starting it again")


def test_every_command_runs_with_our_own_interpreter() -> None:
    ports = processes.Ports(web=8000, flower=5555, simulator=8900, smtp=8925)
    all_of_them = processes.everything(ports)
    assert {each.arguments[0] for each in all_of_them} == {sys.executable}
    names = ["simulator", "web", "worker1", "worker2", "worker3", "relay", "beat", "flower"]
    assert [each.name for each in all_of_them] == names


def test_no_command_line_holds_a_password() -> None:
    command = " ".join(processes.flower(5555).command)
    assert "auth" not in command
