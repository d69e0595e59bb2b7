"""Settlements as lines of a spill file and back. Used by ``deliveries.delivery.spill`` and ``replay``.

A line holds ids, the provider's id and code, and what was decided: no recipient, no body, and not the provider's own
words, which may quote either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from chaski.vocabulary import Status
from deliveries.delivery.settle import Settlement
from deliveries.retry import Decision, Outcome
from deliveries.sql import as_json

VERSION = 1
_NOT_KEPT = "the provider's words were not kept: the worker ended before the database was back"


class Unreadable(ValueError):
    """A line that no settlement can be made of; the text says why."""


def header(owner: str) -> bytes:
    """The first line of a file."""
    return f"{json.dumps({'version': VERSION, 'owner': owner})}\n".encode()


def version_of(line: bytes) -> int:
    """The version that a header names. Raises ``Unreadable``."""
    try:
        version = json.loads(line)["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable("its first line names no version") from error
    if not isinstance(version, int):
        raise Unreadable("its version is no number")
    return version


def to_line(settlement: Settlement) -> bytes:
    """``settlement`` in one line of UTF-8, its line break included."""
    outcome = settlement.outcome
    bare = replace(settlement, outcome=replace(outcome, detail="" if outcome.accepted else _NOT_KEPT))
    fields = asdict(bare)
    for name in (
        "unmapped",
        "rest_seconds",
    ):  # of the moment only, and unknown to the release before, which may read this line
        del fields["outcome"][name]
    return f"{as_json(fields)}\n".encode()


def of_line(line: bytes) -> Settlement:
    """The settlement of a line. Raises ``Unreadable``."""
    try:
        fields = json.loads(line)
        return Settlement(
            id=UUID(fields["id"]),
            number=int(fields["number"]),
            token=UUID(fields["token"]),
            account_id=int(fields["account_id"]),
            opened_at=datetime.fromisoformat(fields["opened_at"]),
            outcome=Outcome(**_with_moments(fields["outcome"], "until", "written_at")),
            decision=_decision(fields["decision"]),
            at=_moment(fields["at"]),
            crash=int(fields["crash"]),
            suspicion=int(fields["suspicion"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}"[:200]) from error


def _decision(fields: Mapping[str, Any]) -> Decision:
    path = tuple(Status(word) for word in fields["path"])
    return Decision(**_with_moments({**fields, "path": path}, "due_at", "ask_at"))


def _with_moments(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**fields, **{name: _moment(fields.get(name)) for name in names}}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
