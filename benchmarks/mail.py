"""S10: mails to a local SMTP server, against django-post_office with two processes.

Both by the server's own clock from the first mail to the last, so that neither pays for starting up.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from benchmarks import verify
from benchmarks.cpu import cpu_seconds
from benchmarks.drain import QUEUE, wait_until_dry
from benchmarks.figures import Finding, Measure, compared
from benchmarks.processes import ROOT
from benchmarks.run import Run, Stage, say, stage
from benchmarks.subject import inside
from benchmarks.yardsticks import need
from config import local
from config.embedded.process import spawn

MAILS = 20_000
DATABASE = "post_office"
PACKAGE = "benchmarks.peers.post_office_project"
NOT_SENT = "SELECT count(*) FROM post_office_email WHERE status IS DISTINCT FROM 0"


@dataclass(frozen=True, slots=True)
class MailSink:
    """The server while it runs."""

    port: int
    pid: int
    file: Path

    def rate(self, count: int) -> float:
        """Mails per second; raises ``Unsound`` unless each of ``count`` came once. Forgets them."""
        lines = [line.split(" ", 1) for line in self.file.read_text().splitlines()]
        self.file.write_text("")
        subjects = Counter(subject for _, subject in lines)
        if subjects != Counter(f"Tu pedido {number}" for number in range(count)):
            raise verify.Unsound(f"{subjects.total()} mails came, {len(subjects)} different ones, instead of {count}")
        return (count - 1) / (float(lines[-1][0]) - float(lines[0][0]))


def measure(run: Run) -> list[Finding]:
    """Chaski and django-post_office in turn, the same mails to the same server."""
    need("django-post_office", "post_office")
    count = run.count(MAILS)
    ours: list[float] = []
    theirs: list[float] = []
    share: list[float] = []
    with stage(run) as on, _mail_sink(on.home) as sink:
        for turn in range(1, run.turns() + 1):
            before = cpu_seconds([sink.pid])
            ours.append(_chaski(on, sink, count))
            share.append((cpu_seconds([sink.pid]) - before) / (count / ours[-1]))
            theirs.append(_post_office(on, sink, count))
            say(f"mail {turn}/{run.turns()}: Chaski {ours[-1]:,.0f}/s, post_office {theirs[-1]:,.0f}/s")
    note = f"the mail server used up to {max(share):.0%} of one core while Chaski sent"
    measures = Measure("Chaski", "mails/s", tuple(ours)), Measure("django-post_office", "mails/s", tuple(theirs))
    return [compared("S10", *measures, notes=[note])]


@contextmanager
def _mail_sink(home: Path) -> Iterator[MailSink]:
    file = home / "mails"
    process = spawn(
        [sys.executable, "-m", "benchmarks.mail_sink", str(file)],
        on_parent_death=SIGTERM,
        environment={"PYTHONPATH": str(ROOT), "PATH": ""},
        folder=ROOT,
        output=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield MailSink(int(process.stdout.readline()), process.pid, file)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _chaski(on: Stage, sink: MailSink, count: int) -> float:
    service = on.chaski.new_service()
    options = ("host=127.0.0.1", f"port={sink.port}", "security=none", "from=shop@shop.example")
    on.chaski.account("email", "smtp", "main", service, options)
    with on.chaski.running() as running:
        running.hold(QUEUE)
        on.chaski.inside("fill", str(service.id), str(count), "--channel", "email")
        on.servers.settle()
        running.let_go(QUEUE)
        wait_until_dry(on, service.id, "email")
        running.all_alive()
    verify.chaski_sent_each_once(on.chaski, service, None, count)
    return sink.rate(count)


def _post_office(on: Stage, sink: MailSink, count: int) -> float:
    on.servers.create(DATABASE)
    given = {"DATABASE_URL": on.servers.database(DATABASE), "SMTP_PORT": str(sink.port), "PYTHONPATH": str(ROOT)}
    environment = {**local.for_children({}), **given, "DJANGO_SETTINGS_MODULE": f"{PACKAGE}.settings"}
    inside(environment, "benchmarks.peers.migrate")
    inside(environment, f"{PACKAGE}.fill", str(count))
    on.servers.settle(DATABASE)
    command = [sys.executable, "-m", "django", "send_queued_mail", "--processes", "2"]
    lock = ("--lockfile", str(on.home / "post_office"))
    subprocess.run([*command, *lock], cwd=ROOT, env=environment, check=True, capture_output=True)
    if on.servers.query(NOT_SENT, database=DATABASE) != [(0,)]:
        raise verify.Unsound("django-post_office left mails unsent")
    return sink.rate(count)
