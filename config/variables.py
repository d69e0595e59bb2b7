"""The environment variables of the service: one table, read once, checked at start.

Read by ``config.settings``; printed by `manage.py settings`; rendered into docs/reference/settings.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

from config import environment as environment_of_up


def text(value: str) -> object:
    return value


def words(value: str) -> object:
    return [word.strip() for word in value.split(",") if word.strip()]


def positive(value: str) -> object:
    number = float(value)
    if not 0 < number < 1e6:
        raise ValueError("must be a number above 0")
    return number


def environment(value: str) -> object:
    if value not in {"development", "test", "production"}:
        raise ValueError("must be development, test or production")
    return value


def broker(value: str) -> object:
    if not value.startswith(("redis://", "rediss://", "redis+socket://", "amqp://", "amqps://")):
        raise ValueError("must begin with redis://, rediss://, redis+socket:// or amqp://")
    return value


def database(value: str) -> object:
    if not value.startswith(("postgres://", "postgresql://")):
        raise ValueError("must begin with postgres:// (Chaski runs on PostgreSQL only)")
    return value


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. ``unsafe`` marks a default that production refuses."""

    name: str
    help: str
    default: str = ""
    parse: Callable[[str], object] = text
    secret: bool = False
    unsafe: bool = False


VARIABLES = (
    Variable("CHASKI_ENV", "development, test or production", "development", environment),
    Variable("DATABASE_URL", "postgres://user:password@host:5432/name", "", database, secret=True, unsafe=True),
    Variable("CHASKI_BROKER_URL", "Redis/Valkey or RabbitMQ for the bells", "", broker, secret=True, unsafe=True),
    Variable(
        "CHASKI_CACHE_URL", "Redis/Valkey for slots and pacing; the broker when that is Redis", "", text, secret=True
    ),
    Variable("CHASKI_SECRET_KEY", "Django's signing key", "development-only", text, secret=True, unsafe=True),
    Variable(
        "CHASKI_CREDENTIAL_KEYS",
        "Fernet keys that encrypt provider credentials, newest first, comma-separated",
        "ZGV2ZWxvcG1lbnQtb25seS1kZXZlbG9wbWVudC1vbmw=",
        words,
        secret=True,
        unsafe=True,
    ),
    Variable(
        "CHASKI_PUBLIC_URL", "where providers and people reach this service", "http://127.0.0.1:8000", text, unsafe=True
    ),
    Variable(
        "CHASKI_ALLOWED_HOSTS", "host names that requests may carry", "localhost,127.0.0.1,[::1]", words, unsafe=True
    ),
    Variable("CHASKI_PRIVATE_NETWORKS", "networks that webhooks may reach besides public ones", "", words),
    Variable("CHASKI_FLOWER_URL", "where people reach Flower, for links from a message", "", text),
    Variable(
        "CHASKI_SPILL",
        "folder where workers keep results while the database is away; must outlive them; empty: .chaski/spill",
        "",
        text,
    ),
    Variable(
        "CHASKI_WITNESS",
        "file that remembers how far the database had come, on a volume of the worker or relay; empty: .chaski/witness",
        "",
        text,
    ),
    Variable("CHASKI_TIME_SCALE", "multiplies every duration; only the test environment honours it", "1", positive),
    Variable("SENTRY_DSN", "Sentry project; empty: errors are only logged", "", text, secret=True),
    Variable("CHASKI_RELEASE", "the version that is running, for logs and Sentry", "", text),
    Variable("CHASKI_LOG", "json or console", "console", text),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable as it is in force: its value and where it came from (environment, file or default)."""

    variable: Variable
    value: object
    source: str


def read(environ: Mapping[str, str], *, from_file: frozenset[str] = frozenset()) -> dict[str, Setting]:
    """Every variable by name. Raises ``ImproperlyConfigured`` with a sentence naming the first wrong one."""
    found: dict[str, Setting] = {}
    for variable in VARIABLES:
        given = environ.get(variable.name, "")
        raw = given or variable.default
        try:
            value = variable.parse(raw) if raw else words(raw) if variable.parse is words else ""
        except ValueError as error:
            shown = "" if variable.secret else f"={raw!r}"
            raise ImproperlyConfigured(f"{variable.name}{shown} is wrong: it {error}.") from error
        source = ("file" if variable.name in from_file else "environment") if given else "default"
        found[variable.name] = Setting(variable, value, source)
    refuse_unsafe(found)
    return found


def refuse_unsafe(found: Mapping[str, Setting]) -> None:
    """In production every default that is only good for trying must be replaced."""
    if found["CHASKI_ENV"].value != "production":
        return
    unsafe = [name for name, setting in found.items() if setting.variable.unsafe and setting.source == "default"]
    if unsafe:
        raise ImproperlyConfigured(f"CHASKI_ENV=production needs a value of its own for {', '.join(unsafe)}.")


def in_force() -> dict[str, Setting]:
    """The variables of this process, the file that `bin/up` wrote included."""
    loaded = environment_of_up.load()
    return read(os.environ, from_file=frozenset(loaded))
