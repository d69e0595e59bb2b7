"""The tables that repeat the code are those that the code makes now."""

from __future__ import annotations

import pytest

from tests.docs.blocks import BLOCK, BLOCKS, DOUBLES, ROOT, fresh
from tests.docs.texts import documents


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_fresh(name: str) -> None:
    file, _ = BLOCKS[name]
    text = (ROOT / file).read_text()
    assert fresh(name, text) == text, "stale: run .venv/bin/python -m tests.docs.blocks"


def test_a_stale_block_would_be_noticed() -> None:
    file, _ = BLOCKS["life cycle"]
    text = (ROOT / file).read_text()
    stale = text.replace("| `read` | nothing |", "| `read` | `queued` |")
    assert stale != text
    assert fresh("life cycle", stale) == text


def test_no_document_has_a_block_that_nobody_makes() -> None:
    mine = {file for file, _ in BLOCKS.values()}
    for path in documents():
        names = {match["name"] for match in BLOCK.finditer(path.read_text())}
        if path.relative_to(ROOT).as_posix() in mine:
            assert names <= set(BLOCKS)


def test_every_double_has_its_words() -> None:
    assert {path.name for path in (ROOT / "tests" / "doubles").glob("test_*.py")} == set(DOUBLES)
