"""How much the sink can take, by a load generator that nobody here wrote: ApacheBench."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Finding, Measure, alone
from benchmarks.run import Run, say
from benchmarks.sink_process import Sink
from benchmarks.yardsticks import NotInstalled

REQUESTS = 50_000
CONNECTIONS = 50
_RATE = re.compile(r"Requests per second:\s+([\d.]+)")
BODY = b"To=%2B56911112222&From=%2B15005550006&Body=Hola&StatusCallback=https%3A%2F%2Fshop.example%2F%3Fmessage%3D1"


def measure(run: Run) -> list[Finding]:
    """Answers without delay over fifty kept-open connections; ``ab`` takes its share of the same cores."""
    if shutil.which("ab") is None:
        raise NotInstalled("The sink's ceiling needs ApacheBench (ab); install it with: apt-get install apache2-utils")
    rates: list[float] = []
    used: list[float] = []
    with Sink() as sink, TemporaryDirectory(prefix="chaski-bench-") as folder:
        body = Path(folder) / "body"
        body.write_bytes(BODY)
        for turn in range(1, run.turns() + 1):
            sink.reset()
            before = sink.seen().cpu_seconds
            rates.append(_drive(sink, body, run.count(REQUESTS)))
            used.append((sink.seen().cpu_seconds - before) / run.count(REQUESTS) * 1000)
            say(f"sink {turn}/{run.turns()}: {rates[-1]:,.0f}/s, {used[-1]:.3f} ms of CPU each")
    return [alone("sink", Measure("answers", "/s", tuple(rates)), Measure("CPU", "ms", tuple(used)))]


def _drive(sink: Sink, body: Path, count: int) -> float:
    kind = "application/x-www-form-urlencoded"
    command = ["ab", "-k", "-q", "-n", str(count), "-c", str(min(CONNECTIONS, count)), "-p", str(body), "-T", kind]
    url = sink.url("d0") + "/2010-04-01/Accounts/AC/Messages.json"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    return float(_RATE.findall(done.stdout)[0])
