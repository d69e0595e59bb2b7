"""Findings as people and programs read them: a table on stdout, Markdown for docs/benchmarks.md, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Finding, Measure
from benchmarks.machine import line
from benchmarks.targets import Target, target

BEGIN, END = "<!-- begin: results -->\n", "<!-- end: results -->"
HEAD = ("target", "what", "figure", "pairs", "floor", "goal", "met")


def document(findings: Sequence[Finding], facts: dict[str, str], command: str) -> dict[str, Any]:
    """Everything, for JSON."""
    return {"machine": facts, "command": command, "findings": [_as_dict(each) for each in findings]}


def _as_dict(finding: Finding) -> dict[str, Any]:
    aim = target(finding.key)
    measures = [{**asdict(each), "median": each.median} for each in finding.measures]
    return {**asdict(finding), "measures": measures, "target": asdict(aim), "verdict": aim.verdict(finding.figure)}


def text(findings: Iterable[Finding]) -> str:
    """For a terminal."""
    lines: list[str] = []
    for finding in findings:
        aim = target(finding.key)
        cells = dict(zip(HEAD, _cells(finding, aim), strict=True))
        lines.append(f"{aim.key}: {aim.words}")
        lines.append(
            f"    {cells['figure']} ({cells['pairs']}); floor {cells['floor']}, goal {cells['goal']}: {cells['met']}"
        )
        lines += [f"    {_measure(measure)}" for measure in finding.measures]
        lines += [f"    {note}" for note in finding.notes]
    return "\n".join(lines)


def markdown(findings: Sequence[Finding], facts: dict[str, str], command: str) -> str:
    """The generated block of docs/benchmarks.md."""
    rows = [HEAD, ("---",) * len(HEAD), *(_cells(finding, target(finding.key)) for finding in findings)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    details = "".join(
        f"- **{finding.key}**: {'; '.join([*map(_measure, finding.measures), *finding.notes])}\n"
        for finding in findings
    )
    return f"`{command}`\n\n{line(facts)}\n\n{table}\n{details}"


def write_block(path: Path, body: str) -> None:
    """Replace what is between the marks in ``path``. Raises ``ValueError`` where there are none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN.strip()} ... {END}")
    path.write_text(f"{before}{BEGIN}{body}{END}{after}")


def _cells(finding: Finding, aim: Target) -> tuple[str, ...]:
    low, high = min(finding.per_pair), max(finding.per_pair)
    return (
        aim.key,
        aim.words,
        _with(finding.figure, aim.unit),
        f"{number(low)} to {number(high)} in {len(finding.per_pair)}",
        _with(aim.floor, aim.unit),
        _with(aim.goal, aim.unit),
        aim.verdict(finding.figure),
    )


def _measure(measure: Measure) -> str:
    spread = f"{number(measure.low)} to {number(measure.high)}"
    return f"{measure.name} {_with(measure.median, measure.unit)} ({spread})"


def _with(value: float, unit: str) -> str:
    return f"{number(value)}{'' if unit in ('x', '%') or unit.startswith('/') else ' '}{unit}".rstrip()


def number(value: float) -> str:
    """Three digits that say something: 4,312; 87.4; 0.291."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
