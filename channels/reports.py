"""Pieces of what vendors report later, read without trust: our own ids come back, and moments come as numbers.

Used by providers when they parse receipts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID


def our_id(found: object) -> str:
    """The message's id, where the vendor echoes one; empty for what is none."""
    try:
        return str(UUID(str(found)))
    except ValueError:
        return ""


def moment(since_epoch: object, per_second: int = 1) -> datetime | None:
    """Aware UTC, of a whole number (or its text) of ``per_second`` parts of a second since 1970; None for no time of our days."""
    try:
        return datetime.fromtimestamp(int(str(since_epoch)) / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        return None
