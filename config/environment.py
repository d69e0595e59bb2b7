"""What a running `bin/up` tells the other commands: where its servers are, and the secrets made for this
machine.

Written by `config.up`; read by the settings, so that `manage.py` in another shell finds the running system.
Standard library only. Both files lie in `.chaski/`, are readable by their owner alone, and hold KEY=VALUE
lines.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".chaski"
FILE = FOLDER / "environment"

#: Variables that name one set of servers: who names the first himself gets none of the others from the file.
BELONGS_TO = {
    "DATABASE_URL": ("DATABASE_URL", "CHASKI_BROKER_URL", "CHASKI_CACHE_URL"),
    "CHASKI_BROKER_URL": ("CHASKI_CACHE_URL",),
}


def load(environ: MutableMapping[str, str] = os.environ, *, file: Path = FILE) -> dict[str, str]:
    """Add to ``environ`` what `bin/up` wrote and what is not there yet; returns what was added.

    Nothing is taken for another CHASKI_ENV than the one that the file was written for, so that neither the
    tests nor a production process touch the data of a system that somebody tries out.
    """
    written = read(file)
    if environ.get("CHASKI_ENV", written.get("CHASKI_ENV")) != written.get("CHASKI_ENV"):
        return {}
    own = {name for key, names in BELONGS_TO.items() if environ.get(key) for name in names}
    added = {name: value for name, value in written.items() if name not in environ and name not in own}
    environ.update(added)
    return added


def read(file: Path) -> dict[str, str]:
    """The KEY=VALUE lines of the file; nothing when there is none, or when it is another user's."""
    try:
        lines = file.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return {}
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, equals, value in pairs if equals}


def write(values: Mapping[str, str], *, file: Path = FILE) -> None:
    """Replace the file in one step; only its owner can read it."""
    for key, value in values.items():
        if "\n" in value:
            raise ValueError(f"{key} has a line break, which {file} cannot hold")
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.writelines(f"{key}={value}\n" for key, value in values.items())
    new.replace(file)


class Secrets:
    """The secrets of this machine, each made once and kept in `.chaski/secrets`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = read(file)
        made = {name: value for name, value in _fresh().items() if name not in self._known}
        if made:
            self.keep(**made)

    def __getitem__(self, name: str) -> str:
        return self._known[name]

    def get(self, name: str) -> str | None:
        """A value kept by `keep`, such as the API key of the samples; None before that."""
        return self._known.get(name)

    def keep(self, **values: str) -> None:
        """Keep more of them."""
        self._known.update(values)
        write(self._known, file=self._file)


def _fresh() -> dict[str, str]:
    return {
        "CHASKI_SECRET_KEY": secrets.token_urlsafe(48),
        "CHASKI_CREDENTIAL_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),  # a Fernet key
        "ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "FLOWER_PASSWORD": secrets.token_urlsafe(12),
        "WEBHOOK_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    }
