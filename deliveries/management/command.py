"""What every command of Chaski shares: JSON on stdout when asked for, everything else on stderr, one clear error line."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from deliveries.models import Account, Batch, Message, Service
from deliveries.sql import is_away

Row = TypeVar("Row", Message, Batch)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"[0-9]{1,12}[smhd]\Z")
_LONGEST = timedelta(days=3660)


class Command(BaseCommand):
    """Base of the commands. Machine-readable output goes to stdout, words for people to stderr."""

    requires_system_checks: list[str] = []
    #: Verb -> what ``--json`` prints, as an example; the empty verb where the command has none. The reference shows it.
    examples: ClassVar[Mapping[str, Any]] = {}

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it; a database that is away is one sentence, not a traceback."""
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            if not is_away(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CommandError(f"the database does not answer: {reason}. `manage.py doctor` looks closer") from error

    def say(self, text: str = "") -> None:
        """A line for people."""
        self.stderr.write(text, style_func=str)

    def give(self, data: Any) -> None:
        """The machine-readable answer."""
        self.stdout.write(json.dumps(data, indent=2, default=_plain, ensure_ascii=False))

    def add_json(self, parser: ArgumentParser) -> None:
        """The flag that all reporting commands take."""
        parser.add_argument("--json", action="store_true", help="print the answer as JSON on stdout")


def _plain(value: object) -> str:
    """Times in ISO 8601, as the API writes them; ids as they are printed."""
    return value.isoformat() if isinstance(value, date) else str(value)


def actor() -> str:
    """Who runs this command, for the audit."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"shell:{os.getuid()}"


def leave(code: int) -> None:
    """End with ``code`` where the answer is the exit code."""
    if code:
        sys.exit(code)


def service_named(name: str) -> Service:
    """The service ``name``. Raises ``CommandError`` naming those that exist."""
    found = Service.objects.filter(name=name).first()
    if found is None:
        names = ", ".join(Service.objects.order_by("name").values_list("name", flat=True)[:20])
        raise CommandError(
            f"there is no service {name!r}; there is {names or 'none yet: `manage.py service create NAME`'}"
        )
    return found


def account_named(name: str, service: Service | None = None) -> Account:
    """The account ``name``, the service's own before a shared one. Raises ``CommandError``."""
    found = Account.objects.filter(name=name)
    if service is not None:
        found = found.filter(service=service) or found.filter(service=None)
    accounts = list(found[:2])
    if len(accounts) == 1:
        return accounts[0]
    names = ", ".join(sorted(set(Account.objects.values_list("name", flat=True)))[:20])
    if not accounts:
        raise CommandError(f"there is no account {name!r}; there is {names or 'none yet'}")
    raise CommandError(f"several services have an account {name!r}; say which with --service")


def message_with(given: str) -> Message:
    """The message with the id ``given``. Raises ``CommandError``."""
    return _row_with(Message, given)


def batch_with(given: str) -> Batch:
    """The batch with the id ``given``. Raises ``CommandError``."""
    return _row_with(Batch, given)


def _row_with(model: type[Row], given: str) -> Row:
    word = model._meta.verbose_name
    try:
        found = model._default_manager.filter(pk=UUID(given)).first()
    except ValueError as error:
        raise CommandError(
            f"{given!r} is not a {word} id; it looks like 01980000-0000-7000-8000-000000000000"
        ) from error
    if found is None:
        raise CommandError(f"there is no {word} {given}")
    return found


def in_words(error: ValidationError) -> str:
    """What a model refuses, field by field, in one line."""
    return "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())


def pairs(given: list[str] | None) -> dict[str, str]:
    """``["k=v"]`` as a dictionary. Raises ``CommandError``."""
    found = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise CommandError(f"{item!r} is not of the form name=value")
        found[name] = value
    return found


def duration(given: str) -> timedelta:
    """``90s``, ``5m``, ``1h``, ``7d``. Raises ``ValueError``."""
    if not _DURATION.match(given):
        raise ValueError(f"{given!r} is not a duration such as 90s, 5m, 1h or 7d")
    seconds = int(given[:-1]) * _UNITS[given[-1]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{given!r} is longer than {_LONGEST.days} days")
    return timedelta(seconds=seconds)
