"""Witnesses: what remembers outside of the database how far each lineage has come, and so shows that one was restored.

Asked and told by ``lineage.Guard``, outside of any transaction. Both are bounded: Valkey by its client's short time-outs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import redis
from django.conf import settings

from deliveries import cache

KEY = "chaski:lineage"
#: Lineages that a file remembers: those of trials and tests come and go.
REMEMBERED = 20


class Unreadable(OSError):
    """What a witness kept is no record of counts: torn by a full disk, or another program's. It has given no answer."""


#: What a witness raises while it is away.
AWAY = (OSError, redis.RedisError)


class Witness(Protocol):
    """Raises one of ``AWAY`` while it is away. Called by several threads and processes at once."""

    name: str

    def known(self) -> Mapping[UUID, int]:
        """Every lineage that it knows, with the highest count that it saw."""

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known."""


class ValkeyWitness:
    """One sorted set for all lineages that this Valkey ever saw: one for each database, and one more for each arming."""

    name = "Valkey"

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def known(self) -> Mapping[UUID, int]:
        """Every lineage with the highest count that it saw."""
        found: Any = self._client.zrange(KEY, 0, -1, withscores=True)
        try:
            return {UUID(member.decode()): int(score) for member, score in found}
        except (ValueError, OverflowError) as error:
            raise Unreadable(f"{KEY} is not ours: {error}") from error

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known."""
        self._client.zadd(KEY, {str(lineage): counter}, gt=True)


class FileWitness:
    """A small JSON file, replaced in one step. Of several processes that write at once the last one wins; they are close."""

    name = "the file of this machine"

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self) -> Mapping[UUID, int]:
        """Every lineage with the highest count that it saw. Raises ``Unreadable`` where the file is no such record."""
        try:
            found = json.loads(self._path.read_bytes())
            return {UUID(key): int(value) for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise Unreadable(f"{self._path} is no record of counts: {error}") from error

    def saw(self, lineage: UUID, counter: int) -> None:
        """Remember ``counter``, unless a higher one is known. A file that is no record is replaced by one."""
        known = self._readable()
        highest = max(counter, known.pop(lineage, 0))
        kept = {**dict(list(known.items())[1 - REMEMBERED :]), lineage: highest}
        self._replace(json.dumps({str(key): value for key, value in kept.items()}))

    def _readable(self) -> dict[UUID, int]:
        try:
            return dict(self.known())
        except Unreadable:
            return {}

    def _replace(self, text: str) -> None:
        """Whole or not at all, after a crash of the machine too. Names by pid would be the same in two containers."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=self._path.parent, prefix=f"{self._path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(new).replace(self._path)
        except OSError:
            Path(new).unlink(missing_ok=True)
            raise


def of_this_process() -> Iterator[Witness]:
    """Valkey where there is one, and the file."""
    client = cache.client()
    if client is not None:
        yield ValkeyWitness(client)
    yield FileWitness(Path(settings.CHASKI_WITNESS))
