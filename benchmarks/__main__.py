"""`python -m benchmarks`: run some or all benchmarks and say what was found."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

import psycopg

from benchmarks import (
    backlog,
    ceiling,
    counts,
    drain,
    footprint,
    idle,
    latency,
    machine,
    mail,
    neighbours,
    receiving,
    report,
    taking_in,
)
from benchmarks.figures import Finding
from benchmarks.processes import WorkersLost
from benchmarks.run import Benchmark, Run, say
from benchmarks.subject import InsideError
from benchmarks.targets import TARGETS, target
from benchmarks.verify import Unsound
from benchmarks.yardsticks import NotInstalled
from config.embedded import ServerStartError
from config.management import ManagementError

PROBLEMS = (
    InsideError,
    ManagementError,
    NotInstalled,
    ServerStartError,
    Unsound,
    WorkersLost,
    CalledProcessError,
    ConnectionError,
    psycopg.Error,
)
BENCHMARKS = {
    each.name: each
    for each in (
        Benchmark("drain", "a backlog, against bare, tuned and naive Celery", drain.measure),
        Benchmark("intake", "the library call against COPY", taking_in.in_process),
        Benchmark("batches", "POST /batches against COPY", taking_in.batches),
        Benchmark("requests", "POST /messages against a bare Django view", taking_in.requests),
        Benchmark("latency", "accepted -> recorded as sent, 50 a second", latency.measure),
        Benchmark("receipts", "receipts stored and applied", receiving.measure),
        Benchmark("mail", "mails over SMTP against django-post_office", mail.measure),
        Benchmark("backlog", "a backlog of a million from its start to its end", backlog.measure),
        Benchmark("counts", "statements per batch, tasks per backlog", counts.measure),
        Benchmark("neighbours", "the other channels beside a provider that never answers", neighbours.measure),
        Benchmark("urgent", "urgent messages over a bulk backlog", latency.urgent),
        Benchmark("idle", "what everything uses while nothing happens", idle.measure),
        Benchmark(
            "footprint", "WAL, disk, CPU and connections per message, with 1, 2 and 4 workers", footprint.measure
        ),
        Benchmark("sink", "what the sink itself can take, by ApacheBench", ceiling.measure),
    )
}
EPILOG = """A name is that of a benchmark or of a target (S1). Without names all of them run, which takes hours.
Everything runs in a temporary folder with servers of its own; nothing else on the machine should run meanwhile.
Exit code: 0 all floors reached, 1 not all, 2 a run was unsound (a message lost or doubled) or could not be made."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ``--help`` and mistakes end the process as people expect."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Chaski on this machine against its targets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="what to run; --list shows the names")
    add(
        "--pairs",
        type=_positive,
        metavar="N",
        help="how often subject and yardstick run in turn (5; a backlog and counts once)",
    )
    add("--messages", type=_positive, metavar="N", help="how many per run, instead of each benchmark's own number")
    add("--workers", type=_positive, default=os.cpu_count(), metavar="N", help="worker processes (one per core)")
    add("--peers", action="store_true", help="also measure other libraries; needs benchmarks/requirements.txt")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured as JSON; - is stdout")
    add("--markdown", type=Path, metavar="FILE", help="write the tables into this page, between its marks")
    add("--list", action="store_true", help="show benchmarks and targets, run nothing")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if not _chosen([name])]
    if unknown:
        parser.error(f"there is no benchmark or target {', '.join(unknown)}; --list shows them")
    return asked


def _positive(given: str) -> int:
    if not given.isdecimal() or not int(given):
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number of 1 or more")
    return int(given)


def _chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks that ``names`` mean, each once; all of them where no name is given."""
    wanted = set(names) | {aim.benchmark for aim in TARGETS if aim.number.lower() in {name.lower() for name in names}}
    return [each for each in BENCHMARKS.values() if not names or each.name in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the result is the exit code."""
    asked = parse(arguments)
    if asked.list:
        print(listing())
        return 0
    run = Run(asked.pairs, asked.messages, asked.workers, asked.peers)
    findings, failed = measure(_chosen(asked.names), run)
    if findings:
        _tell(findings, asked)
    missed = any(target(finding.key).verdict(finding.figure) == "missed" for finding in findings)
    return 2 if failed else int(missed)


def measure(chosen: Sequence[Benchmark], run: Run) -> tuple[list[Finding], bool]:
    """What was found, and whether a benchmark failed; one that fails does not cost the findings of the others."""
    findings: list[Finding] = []
    failed = False
    for benchmark in chosen:
        say(f"{benchmark.name}: {benchmark.words}")
        try:
            findings += benchmark.measure(run)
        except PROBLEMS as problem:
            say(f"{benchmark.name} failed: {problem}")
            failed = True
    return findings, failed


def _tell(findings: Sequence[Finding], asked: argparse.Namespace) -> None:
    facts = machine.describe()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    if asked.json:
        document = json.dumps(report.document(findings, facts, command), indent=1)
        if str(asked.json) == "-":
            print(document)
        else:
            asked.json.write_text(document + "\n")
    if asked.markdown:
        report.write_block(asked.markdown, report.markdown(findings, facts, command))
    print(
        f"{machine.line(facts)}\n\n{report.text(findings)}", file=sys.stderr if str(asked.json) == "-" else sys.stdout
    )


def listing() -> str:
    """Every benchmark with its targets."""
    lines: list[str] = []
    for benchmark in BENCHMARKS.values():
        lines.append(f"{benchmark.name}: {benchmark.words}")
        for aim in TARGETS:
            if aim.benchmark == benchmark.name:
                sign = "at most" if aim.less_is_better else "at least"
                lines.append(f"    {aim.key:10} {aim.words}: {sign} {aim.floor:g} {aim.unit}, goal {aim.goal:g}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
