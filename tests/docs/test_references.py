"""What the documents and the code point to exists: files, sections, tests, decisions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.texts import PYTHON, ROOT, documents, name_of, prose, tracked

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FOLDERS = ("docs", "tests", "config", "deliveries", "channels", "chaski", "benchmarks", "ops", "bin")
PATH = re.compile(rf"(?<![\w./-])(?P<path>(?:{'|'.join(FOLDERS)})/[\w./-]*\w)")
ADDRESS = re.compile(r"https?://\S+")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as renderers of Markdown make them."""
    texts = (match["text"].lower() for match in HEADING.finditer(prose(path.read_text())))
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def exists(name: str) -> bool:
    """Does a path of the project exist, as a file, a folder or (without its ending) a module?"""
    path = ROOT / name
    return path.exists() or path.with_name(f"{path.name}.py").exists()


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_relative_links_lead_to_a_file_and_a_section(document: Path) -> None:
    for match in LINK.finditer(prose(document.read_text())):
        target, _, anchor = match["target"].partition("#")
        if ADDRESS.match(target):
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.is_file(), f"{match['target']} does not exist"
        assert not anchor or anchor in anchors(path), f"{match['target']} has no such section"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_paths_that_documents_name_exist(document: Path) -> None:
    text = ADDRESS.sub("", document.read_text())
    missing = {match["path"] for match in PATH.finditer(text) if not exists(match["path"])}
    assert missing <= {"ops/environment"}, missing


def test_documents_that_the_code_names_exist() -> None:
    named = re.compile(r"(?<![\w/.])docs/[\w./-]+\.md")
    missing = {
        (name_of(path), found)
        for path in tracked()
        if path.suffix in (*PYTHON, ".toml", ".yml", ".sh") or path.parent.name in ("bin", "ops")
        for found in named.findall(ADDRESS.sub("", path.read_text()))
        if not exists(found)
    }
    assert not missing


def test_every_decision_is_listed_and_numbered_once() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    index = (folder / "README.md").read_text()
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        title = path.read_text().splitlines()[0]
        number, text = re.fullmatch(r"# (\d+)\. (.+)", title).groups()  # type: ignore[union-attr]
        assert f"| [{number}]({path.name}) | {text} |" in index
        assert len(path.read_text().split()) < 600, "a decision has at most a page"
