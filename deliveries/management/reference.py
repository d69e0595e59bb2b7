"""The reference pages that are written from the code: commands, settings, API. Called by `manage.py reference` alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, DjangoHelpFormatter
from drf_spectacular.generators import SchemaGenerator

_NOTE = "<!-- Written by `manage.py reference` from the code; change it there. -->\n"
_METHODS = ("get", "post", "delete")


def pages() -> dict[str, str]:
    """File name under docs/reference -> its text."""
    return {"cli.md": commands(), "settings.md": variables(), "api.md": api()}


def commands() -> str:
    """Every command of the service with its arguments and what ``--json`` prints."""
    ours = sorted(name for name, app in get_commands().items() if app == "deliveries")
    head = (
        "# Commands\n\nEach is called as `python manage.py NAME`. What is for machines goes to stdout, with `--json`; words for"
        " people go to stderr.\nThe exit code is 0, 1 where the command could not do it (with one sentence that says why), and 2"
        " where it was called wrongly;\n`doctor`, `ledger`, `send --wait` and `account test` answer by it as they say below."
        " `...` in an example stands for any name.\n"
    )
    return _NOTE + head + "".join(_command(name) for name in ours)


def _command(name: str) -> str:
    command = load_command_class("deliveries", name)
    parser = command.create_parser("manage.py", name)
    text = f"\n## {name}\n\n{command.help}\n"
    verbs = _verbs(parser)
    if not verbs:
        return text + _usage(name, parser, _examples(command).get(""))
    for verb, (inner, help_text) in verbs.items():
        text += f"\n### {name} {verb}\n\n{_sentence(help_text)}\n"
        text += _usage(f"{name} {verb}", inner, _examples(command).get(verb))
    return text


def _examples(command: BaseCommand) -> dict[str, Any]:
    return dict(getattr(command, "examples", {}))


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {verb: (inner, helps[verb]) for verb, inner in action.choices.items()}
    return {}


def _usage(name: str, parser: argparse.ArgumentParser, example: Any) -> str:
    actions = [action for action in parser._actions if not _is_djangos(action)]
    rows = [(f"`{_shown(action)}`", _explained(action)) for action in actions]
    text = "\n" + _table(("argument", "is"), rows) if rows else f"\n`{name}` takes no arguments.\n"
    if example is None:
        return text
    return f"{text}\nWith `--json`:\n\n```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```\n"


def _is_djangos(action: argparse.Action) -> bool:
    return bool(DjangoHelpFormatter.show_last.intersection(action.option_strings)) or "--help" in action.option_strings


def _shown(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return f"{metavar}..." if action.nargs in ("*", "+") else metavar
    flag = action.option_strings[0]
    if action.nargs == 0:
        return flag
    if action.choices is not None and action.metavar is None:
        metavar = "|".join(str(choice) for choice in action.choices)
    return f"{flag} {metavar}" + ("..." if action.nargs in ("*", "+") else "")


def _explained(action: argparse.Action) -> str:
    text = _sentence(action.help or "")
    if action.choices is not None and (action.metavar is not None or not action.option_strings):
        text += f" One of {', '.join(str(choice) for choice in action.choices)}."
    if action.option_strings and action.required:
        return text + " Required."
    if action.option_strings and action.nargs != 0 and action.default not in (None, "", []):
        return text + f" Default: `{action.default}`."
    return text


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def variables() -> str:
    """Every environment variable, as ``config.variables`` has it."""
    rows = []
    for name, setting in sorted(settings.CHASKI_SETTINGS.items()):
        variable = setting.variable
        default = "(for development only)" if variable.secret and variable.default else variable.default
        needed = "a value of its own" if variable.unsafe else ""
        rows.append((f"`{name}`", f"{variable.help}.", f"`{default}`" if default else "", needed))
    head = (
        "# Settings\n\nEnvironment variables, read once at start. A wrong value stops the start with a sentence that names it."
        " `manage.py settings`\nprints what is in force and where it came from: the environment, the file that `bin/up` wrote, or"
        " the default.\n\n"
    )
    return _NOTE + head + _table(("variable", "is", "default", "production needs"), rows)


def api() -> str:
    """Every call of the API with what it takes and answers."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    head = (
        "# HTTP API\n\nThe whole description is OpenAPI at `/api/schema`, with pages at `/api/docs`. Every call needs"
        " `Authorization: Bearer ck_...`.\nWhat went wrong is `application/problem+json` (RFC 9457): `type`, `title`, `status`,"
        " `code`, `detail`, `errors`, `request_id`.\nNot under `/api/v1`: `/receipts/{account}` (signed by the provider),"
        " `/health/live`, `/health/ready`, `/metrics`.\n"
    )
    return _NOTE + head + "".join(_call(*operation) for operation in _operations(schema))


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield method, path, methods[method]


def _call(method: str, path: str, described: dict[str, Any]) -> str:
    text = f"\n## {method.upper()} {path}\n\n{' '.join(described['description'].split())}\n"
    given = [each for each in described.get("parameters", ()) if each["in"] != "path"]
    if given:
        rows = [(f"`{each['name']}`", f"{each['in']}: {each.get('description', '')}") for each in given]
        text += "\n" + _table(("parameter", "is"), rows)
    if "requestBody" in described:
        text += f"\nTakes {' or '.join(f'`{name}`' for name in described['requestBody']['content'])}.\n"
    return text + f"\nAnswers {', '.join(sorted(described['responses']))}.\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
