"""The fault matrix: every row has a test, and docs/faults.md names only tests that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.faults.evidence import BEGIN, END, PAGE

TESTS = Path(__file__).resolve().parents[1]
ROWS = [*(f"F{number}" for number in range(1, 47)), "D1"]


@cache
def _proved() -> frozenset[tuple[str, str]]:
    """(numbers, file) of every marker ``row(...)`` in the tests."""
    return frozenset(_markers())


def _markers() -> Iterator[tuple[str, str]]:
    for file in sorted(TESTS.glob("*/test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "row" and _numbers(str(node.args[0].value)):
                yield str(node.args[0].value), file.name


def _numbers(text: str) -> set[str]:
    """``F1, F3-F4`` -> F1, F3, F4."""
    found: set[str] = set(re.findall(r"[FD][0-9]+", text))
    for first, last in re.findall(r"F([0-9]+)-F([0-9]+)", text):
        found |= {f"F{number}" for number in range(int(first), int(last) + 1)}
    return found


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_matrix_has_a_test(row: str) -> None:
    assert any(row in _numbers(numbers) for numbers, _ in _proved()), f"no test under tests/faults is marked {row}"


def test_the_page_shows_every_row() -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    shown = {
        (numbers, Path(file).name)
        for numbers, file in re.findall(r"^\| ([^|]+) \|.*`([\w/]+\.py)::", table, re.MULTILINE)
    }
    assert shown == _proved(), "write the page from a run of all rows: see its end"


def test_the_page_names_only_tests_that_there_are() -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)", table):
        folder = TESTS / "faults" if "/" not in file else TESTS.parent
        assert f"def {name}(" in (folder / file).read_text(), f"{file} has no {name}: write the page anew"
