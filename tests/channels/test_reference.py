"""The pages that the code writes are what the code says."""

from __future__ import annotations

import pytest

from channels.reference import DOCS, pages


@pytest.mark.parametrize("name", ["providers.md", "simulator.md"])
def test_a_page_is_as_the_code_writes_it(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == pages()[DOCS / name], f"docs/reference/{name} is stale; run: python -m channels.reference"


def test_no_secret_has_a_default_that_would_be_printed() -> None:
    assert "secret, default" not in "".join(pages().values())
