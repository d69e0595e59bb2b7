"""Who PostgreSQL runs as. It refuses to be root, so root must be somebody else, without changing the machine.

Used by `config.embedded.postgres` alone.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.embedded.errors import ServerStartError

TRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Identity:
    """``prefix`` before a command runs it as this identity; ``owner`` is the user id its files must have."""

    prefix: tuple[str, ...]
    owner: int


def find_identity(postgres: Path) -> Identity:
    """The first identity under which this ``postgres`` can be run. Raises `ServerStartError` when root finds
    none.
    """
    if os.geteuid() != 0:
        return Identity((), os.geteuid())
    for identity in _for_root():
        if _works(identity, postgres):
            return identity
    raise ServerStartError(
        "PostgreSQL refuses to run as root, and this machine lets root neither open a user namespace "
        "(unshare) nor become `nobody` (setpriv). Run this as an ordinary user, or set DATABASE_URL to a "
        "PostgreSQL that already runs."
    )


def _for_root() -> Iterator[Identity]:
    """A user namespace, in which root's own files belong to an ordinary user; else `nobody`, whom folders do
    not stop.

    initdb looks its user id up, so the namespace shows one that the machine has an entry for. Containers
    often forbid namespaces but leave root the right to hand one capability on (capabilities(7), "ambient"):
    with it `nobody` reaches a data folder below root's closed home, as root itself would.
    """
    shown = _ordinary_user()
    yield Identity(("unshare", "--user", f"--map-user={shown}", f"--map-group={shown}", "--"), owner=0)
    nobody = _nobody()
    as_nobody = (f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups")
    reach = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")
    # A change of user id forgets the parent-death signal (prctl(2)), so it is asked for again.
    yield Identity(("setpriv", *as_nobody, *reach, "--pdeathsig=INT", "--"), owner=nobody)


def _ordinary_user() -> int:
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), 1000)


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return _ordinary_user()


def _works(identity: Identity, postgres: Path) -> bool:
    command = [*identity.prefix, str(postgres), "--version"]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=TRY_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
