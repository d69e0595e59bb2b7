"""docker-compose.yml and ops/Dockerfile as these tests read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "ops" / "Dockerfile"
OWN = "chaski:${CHASKI_RELEASE:-local}"

#: ${NAME:?text} and ${NAME:-default}, the two forms that the file uses; $$ is a literal dollar.
INTERPOLATION = re.compile(r"\$\{(?P<name>[A-Z_]+)(?P<kind>:\?|:-)(?P<text>[^}]*)\}")
_DURATION = re.compile(r"(\d+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def compose() -> dict[str, Any]:
    """The file with its anchors resolved and its variables as they stand."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read


def services() -> dict[str, dict[str, Any]]:
    """All services."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services().items() if service["image"] == OWN}


def seconds(duration: str) -> float:
    """``3m`` or ``1m30s`` in seconds."""
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def last(name: str) -> str:
    """What the last instruction ``name`` says."""
    return [rest for word, rest in instructions() if word == name][-1]


def exec_form(text: str) -> list[str]:
    """A command in exec form. Raises ``ValueError`` for one that would run in a shell."""
    words: list[str] = json.loads(text)
    return words
