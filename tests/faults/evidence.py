"""What a run of the matrix saw: one row per test, collected by the fixtures, rendered into docs/faults.md.

``python -m tests.faults.evidence SEEN`` writes the page from the file of a run (CHASKI_FAULTS_SEEN names that file).
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- the table of the last run -->", "<!-- end of the table -->"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``recovery_seconds`` is None where nothing had to recover."""

    numbers: str
    fault: str
    expected: str
    seen: str
    recovery_seconds: float | None
    test: str


@dataclass(slots=True)
class Evidence:
    """Called by a test with what it saw; measures how long the recovery took."""

    said: str = ""
    recovery_seconds: float | None = None
    parts: list[str] = field(default_factory=list)

    def __call__(self, said: str) -> None:
        """Say what was seen; several times add up."""
        self.parts.append(said)
        self.said = "; ".join(self.parts)

    @contextmanager
    def recovery(self) -> Iterator[None]:
        """Measure: from the injury or its end to the condition that the block waits for."""
        begun = time.monotonic()
        yield
        self.took(time.monotonic() - begun)

    def took(self, seconds: float) -> float:
        """The recovery took so long; the longest of several counts."""
        self.recovery_seconds = max(self.recovery_seconds or 0.0, seconds)
        return seconds


def row_of(test: pytest.Item, evidence: Evidence) -> Row | None:
    """The row that ``test`` proves, by its marker ``row``."""
    marker = test.get_closest_marker("row")
    if marker is None:
        return None
    numbers, fault, expected = marker.args
    seconds = None if evidence.recovery_seconds is None else round(evidence.recovery_seconds, 1)
    name = f"{test.location[0]}::{test.name}"
    return Row(numbers, fault, expected, evidence.said, seconds, name)


def order(row: Row) -> tuple[int, str]:
    """By the first number of the row, then by its text."""
    found = re.search(r"[0-9]+", row.numbers)
    return (int(found[0]) if found and row.numbers.startswith("F") else 1000, row.fault)


def table(rows: list[Row]) -> str:
    """The table in Markdown."""
    head = "| row | fault | must hold | seen | recovery | test |\n|---|---|---|---|---|---|\n"
    return head + "".join(_line(row) for row in sorted(rows, key=order))


def _line(row: Row) -> str:
    seconds = "" if row.recovery_seconds is None else f"{row.recovery_seconds:.1f} s"
    test = row.test.removeprefix("tests/faults/").replace("|", "\\|")
    return f"| {row.numbers} | {row.fault} | {row.expected} | {row.seen} | {seconds} | `{test}` |\n"


def main(seen: str) -> None:
    """Put the table of the run into the page."""
    rows = [Row(**json.loads(line)) for line in Path(seen).read_text().splitlines()]
    if twice := sorted(test for test, times in Counter(row.test for row in rows).items() if times > 1):
        sys.exit(f"{seen} holds more than one run: {', '.join(twice[:3])} are in it twice. Begin with an empty file.")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1])
