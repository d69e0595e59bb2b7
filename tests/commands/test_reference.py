"""The pages under docs/reference are what the code says, and every argument explains itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

from deliveries.management import reference
from tests.commands.shell import run

OURS = sorted(name for name, app in get_commands().items() if app == "deliveries")
CONTRACT = {
    "service",
    "account",
    "pause",
    "resume",
    "resolve",
    "endpoint",
    "suppress",
    "unsuppress",
    "route",
    "template",
    "relay",
    "send",
    "trace",
    "ledger",
    "redeliver",
    "doctor",
    "simulator",
    "settings",
}


def test_every_command_of_the_contract_is_there() -> None:
    assert set(OURS) >= CONTRACT


def test_the_reference_is_not_stale() -> None:
    said = run("reference", "--check")
    assert said.code == 0, f"{said.err}Run `manage.py reference` and commit docs/reference."


def test_a_stale_page_is_named_and_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BASE_DIR", tmp_path)
    said = run("reference", "--check")
    assert (said.code, said.err.count("is stale")) == (1, 3)
    assert not list(tmp_path.iterdir())
    assert run("reference").code == 0
    assert run("reference", "--check").code == 0
    (tmp_path / "docs" / "reference" / "cli.md").write_text("old")
    said = run("reference", "--check")
    assert (said.code, said.err.count("cli.md is stale")) == (1, 1)


@pytest.mark.parametrize("name", OURS)
def test_help_explains_the_command_and_every_argument(name: str) -> None:
    command = load_command_class("deliveries", name)
    parser = command.create_parser("manage.py", name)
    assert command.help in " ".join(parser.format_help().split())
    verbs = reference._verbs(parser)
    assert all(text for _, text in verbs.values())
    for inner in [parser] if not verbs else [inner for inner, _ in verbs.values()]:
        for action in inner._actions:
            assert action.help, (name, action)
    said = run(name, "--help")
    assert (said.code, said.err) == (0, "")


def test_every_setting_is_in_the_reference_and_no_secret() -> None:
    text = reference.variables()
    for name, setting in settings.CHASKI_SETTINGS.items():
        assert f"`{name}`" in text
        if setting.variable.secret and setting.value:
            assert str(setting.value) not in text
