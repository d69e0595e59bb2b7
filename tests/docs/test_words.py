"""The project's words: those of the glossary, and none that belong to one machine or to advertising."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chaski.vocabulary import ErrorClass, Status, WaitingFor
from tests.docs.texts import ROOT, documents, name_of, prose, tracked

#: Written in pieces, so that this file does not hold what it forbids.
MACHINE = re.compile(
    "|".join(("/" + "work/", "/" + "root/", r"/home/[a-z]+/", "TO" + "DO", "FIX" + "ME", r"pypi\.or" + "g"))
)
#: Said of ourselves; a word in code marks is somebody's name for something.
ADVERTISING = re.compile(
    r"\b(blazing|seamless\w*|cutting.edge|world.class|effortless\w*|powerful|simply|just works)\b", re.I
)
#: Other systems' words for what the glossary names: tenant is a service, a DLQ is a query, enqueue is accept or ring.
SYNONYMS = re.compile(r"\b(tenants?|DLQ|enqueued?|dispatch\w*|cancelled|cancellation)\b")
CODE = re.compile(r"`[^`]*`")
TEXT = (".py", ".md", ".toml", ".yml", ".in", ".example", "")


def test_nothing_names_a_machine_or_leaves_work_undone() -> None:
    found = {
        (name_of(path), match[0])
        for path in tracked()
        if path.suffix in TEXT and path.suffixes[-2:] != [".lock"]
        for match in MACHINE.finditer(path.read_text(errors="ignore"))
    }
    assert not found


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_documents_use_the_words_of_the_glossary_and_do_not_advertise(document: Path) -> None:
    text = CODE.sub("", prose(document.read_text()))
    assert not ADVERTISING.findall(text)
    if "never enqueues" not in text:
        assert not SYNONYMS.findall(text)


def test_the_glossary_explains_every_word_that_the_api_uses() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for word in (*Status, *WaitingFor, *ErrorClass):
        assert f"`{word}`" in glossary, word
