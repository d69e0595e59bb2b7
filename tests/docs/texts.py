"""The documents and the code as these tests read them: files, code blocks, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = (".py", ".pyi")
_MADE = {"__pycache__", "build", "dist", "node_modules"}


@dataclass(frozen=True, slots=True)
class Snippet:
    """One code block of a document."""

    file: str
    language: str
    text: str

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0] if self.text.strip() else ""
        return f"{self.file}: {first[:40]}"


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project; what is installed, built or kept for one machine is left out."""
    return tuple(sorted(path for path in ROOT.rglob("*") if path.is_file() and _belongs(path.relative_to(ROOT))))


def _belongs(path: Path) -> bool:
    *folders, _ = path.parts
    made = any(name in _MADE or name.endswith(".egg-info") for name in folders)
    return not made and not any(name.startswith(".") and name != ".ci" for name in folders)


def name_of(path: Path) -> str:
    """The path as people write it."""
    return path.relative_to(ROOT).as_posix()


def documents() -> tuple[Path, ...]:
    """Every Markdown file."""
    return tuple(path for path in tracked() if path.suffix == ".md")


def snippets(*languages: str) -> Iterator[Snippet]:
    """The code blocks in one of ``languages``, of every document."""
    for path in documents():
        for match in FENCE.finditer(path.read_text()):
            if match["language"] in languages:
                yield Snippet(name_of(path), match["language"], match["text"])


def prose(text: str) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", text)
