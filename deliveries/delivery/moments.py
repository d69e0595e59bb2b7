"""Times that PostgreSQL can hold and Python cannot: the engine reads them as the last or first it knows.

Intake writes no such time, but a person with SQL may (``expires_at = 'infinity'``), and psycopg refuses to read one: a single row
would make every claim of its lane fail. Registered on the engine's connections by ``deliveries.delivery.database``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Moment(TimestamptzLoader):
    """``timestamptz`` as text. What is no date of the years 1 to 9999 is the nearest one."""

    def load(self, data: Buffer) -> datetime:
        """The time, aware."""
        text = bytes(data)
        if text.endswith(b"BC") or text == b"-infinity":
            return FIRST
        if text == b"infinity" or text.find(b"-") > 4:
            return LAST
        return super().load(data)
