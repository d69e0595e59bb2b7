"""Every command that a document shows exists and takes the flags that are shown."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError
from django.urls import Resolver404, resolve

from benchmarks import __main__ as benchmarks
from config import checks, up
from tests.containers.compose import services
from tests.docs.texts import ROOT, Snippet, documents, name_of, prose, snippets

MARKED = re.compile(r"`(?P<text>(?:\./|python )?manage\.py [^`]+|\./bin/[a-z]+[^`]*|bin/(?:up|test) --[^`]+)`")
#: What is on every machine, or on those that the page is about.
FOREIGN = {"export", "pip", "ssh", "curl", "docker", "pg_dump"}
#: A placeholder in the place of a choice or a number makes no parser happy; these stand for one.
PLACEHOLDERS = {"SECONDS": "1", "CHANNEL": "sms", "PROVIDER": "twilio", "VERDICT": "sent"}
#: Named without their arguments: a reference to the command.
BARE = re.compile(r"^[a-z_]+( [a-z_]+)?$")


def lines(text: str) -> Iterator[list[str]]:
    """The commands of a block as words: continued lines joined, pipes and `&&` apart, comments and redirections gone."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|)\s", re.sub(r"\s[<>]\s*\S+", "", line)):
            words = shlex.split(part, comments=True)
            if words:
                yield words


def shown() -> Iterator[tuple[str, list[str]]]:
    """(file, words) of every command in a block."""
    for snippet in snippets("shell"):
        for words in lines(snippet.text):
            yield snippet.file, words


SHOWN = list(shown())


def manage_py(arguments: list[str]) -> None:
    """Parse as `manage.py` would. Raises ``CommandError`` or ``KeyError``."""
    name, *rest = arguments
    command = load_command_class(get_commands()[name], name)
    assert isinstance(command, BaseCommand)
    parser = command.create_parser("manage.py", name)
    parser.parse_args([PLACEHOLDERS.get(word, word) for word in rest])


def compose(words: list[str]) -> None:
    """`docker compose ...`: the services exist, and what runs in them does too."""
    verb, *rest = [word for word in words if word not in ("-T", "--rm", "--no-deps", "--detach", "--build")]
    assert verb in {"up", "ps", "build", "run", "exec", "stop"}, verb
    named = rest if verb in ("up", "stop") else rest[:1]
    assert set(named) <= set(services()), named
    if verb in ("run", "exec") and rest[1:2] == ["python"]:
        check_words(rest[1:])


def check_words(words: list[str]) -> None:
    """One command, whoever runs it."""
    program, *rest = words
    if program == "docker" and rest[0] == "compose":
        compose(rest[1:])
    elif program in ("./manage.py", "manage.py"):
        manage_py(rest)
    elif program == "python" and rest[0] == "manage.py":
        manage_py(rest[1:])
    elif program in ("python", ".venv/bin/python"):
        python(rest)
    elif program == "./bin/up":
        up.options_of(rest)
    elif program == "./bin/test":
        assert checks.pytest_command(rest)
    elif program.startswith(("./", ".venv/bin/")):
        assert (ROOT / program).is_file() or shutil.which(program.rpartition("/")[2]), program
    else:
        assert program in FOREIGN, f"{program} is unknown here"


def python(rest: list[str]) -> None:
    """A file, or ``-m`` and a module; what the benchmarks are given is parsed as they would."""
    if rest[:2] == ["-m", "benchmarks"]:
        assert benchmarks.parse(rest[2:])
    elif rest[:2] == ["-m", "pip"]:
        assert (ROOT / rest[-1]).is_file()
    else:
        assert (ROOT / rest[0]).is_file() or (rest[0] == "-m" and (ROOT / f"{rest[1].replace('.', '/')}.py").is_file())


@pytest.mark.parametrize(("file", "words"), SHOWN, ids=[f"{file}: {' '.join(words)}"[:90] for file, words in SHOWN])
def test_a_command_in_a_block_exists_with_its_flags(file: str, words: list[str]) -> None:
    try:
        check_words(words)
    except (CommandError, SystemExit, KeyError) as error:
        pytest.fail(f"{file} shows a command that does not exist: {' '.join(words)} ({error})")


def test_a_command_in_a_sentence_exists_with_its_flags() -> None:
    for document in documents():
        for match in MARKED.finditer(prose(document.read_text())):
            words = shlex.split(match["text"].partition("|")[0])
            program = words[1:] if words[0] == "python" else words
            if program[1:] == ["NAME"]:
                continue  # any of them
            if program[0].endswith("manage.py") and BARE.match(" ".join(program[1:])):
                assert program[1] in get_commands(), f"{name_of(document)}: {match['text']}"
            else:
                check_words(words)


@pytest.mark.parametrize(
    "words",
    [
        ["./manage.py", "trace"],
        ["./manage.py", "redeliver", "--status", "failed", "--since", "1h", "--really"],
        ["./manage.py", "no-such-command"],
        ["./bin/up", "--often"],
        ["docker", "compose", "up", "no-such-service"],
        ["docker", "compose", "exec", "web", "python", "manage.py", "pause", "--chanel", "sms"],
        ["frobnicate"],
    ],
    ids=" ".join,
)
def test_a_command_that_does_not_exist_is_noticed(words: list[str]) -> None:
    with pytest.raises((AssertionError, CommandError, SystemExit, KeyError)):
        check_words(words)


@pytest.mark.parametrize("command", ["up", "lock", "test", "venv"])
def test_the_commands_of_bin_are_valid_for_a_posix_shell(command: str) -> None:
    done = subprocess.run(["sh", "-n", str(ROOT / "bin" / command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", list(snippets("shell")), ids=str)
def test_addresses_of_ours_lead_somewhere(snippet: Snippet) -> None:
    for path in re.findall(r"(?:\$CHASKI_URL|http://127\.0\.0\.1:8000|http://web:8000)(/[\w/.-]*)", snippet.text):
        resolve(path)


def test_addresses_of_ours_in_sentences_lead_somewhere() -> None:
    ours = re.compile(r"(?:(?:GET|POST) |127\.0\.0\.1:8000|web:8000)(/[\w/.{}-]+)")
    for document in documents():
        for path in ours.findall(document.read_text()):
            known = re.sub(r"\{\w+\}", "01980000-0000-7000-8000-000000000000", path)
            try:
                resolve(known)
            except Resolver404:
                pytest.fail(f"{name_of(document)} names {path}")
