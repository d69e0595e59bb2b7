"""What the benchmarks make of their runs: medians, ratios, verdicts, the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.backlog import rate_of
from benchmarks.figures import Finding, Measure, alone, compared, percentile
from benchmarks.sink import STEP
from benchmarks.targets import TARGETS, target

FACTS = {"cores": "2", "PostgreSQL": "18.4"}


def test_the_figure_is_the_ratio_of_the_medians_and_each_pair_keeps_its_own() -> None:
    ours, theirs = Measure("a", "/s", (30.0, 100.0, 20.0)), Measure("b", "/s", (10.0, 10.0, 5.0))
    found = compared("S1", ours, theirs)
    assert found.figure == 3.0
    assert found.per_pair == (3.0, 10.0, 4.0)


def test_a_run_without_its_partner_is_no_pair() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compared("S1", Measure("a", "/s", (1.0, 2.0)), Measure("b", "/s", (1.0,)))


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


@pytest.mark.parametrize(
    ("key", "figure", "verdict"),
    [("S1", 3.0, "goal"), ("S1", 1.5, "floor"), ("S1", 1.49, "missed"), ("S15", 1.0, "goal"), ("S15", 3.1, "missed")],
)
def test_more_is_better_except_where_less_is(key: str, figure: float, verdict: str) -> None:
    assert target(key).verdict(figure) == verdict


def test_every_goal_lies_beyond_its_floor() -> None:
    assert all(aim.verdict(aim.goal) == "goal" and aim.verdict(aim.floor) == "floor" for aim in TARGETS)
    assert len({aim.key for aim in TARGETS}) == len(TARGETS)


def test_the_rate_of_a_part_counts_the_calls_of_its_steps_alone() -> None:
    timeline = [10] * 10 + [5] * 20
    assert rate_of(timeline, 0.0, 0.25) == pytest.approx(10 / STEP)
    assert rate_of(timeline, 0.9, 1.0) == pytest.approx(5 / STEP)


def test_the_page_gets_what_was_found_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n")
    findings: list[Finding] = [alone("S8", Measure("worker CPU", "ms", (0.4, 0.5, 0.6)))]
    report.write_block(page, report.markdown(findings, FACTS, "python -m benchmarks S8"))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| S8 | worker CPU per message | 0.5 ms | 0.4 to 0.6 in 3 | 0.75 ms | 0.3 ms | floor |" in text
    assert "old" not in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="begin: results"):
        report.write_block(page, "new")
    assert page.read_text() == "nothing\n"
