"""A vendor's error codes as data: what each means for a message, and for people. One table in each provider's file.

Used by providers to class an answer, by the admin and the reference to show what a code means. A code that is in no table is
classed by what else the answer says, counted, and shown as one that somebody should look up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from channels.errors import RecipientRefused, SendError, Throttled


@dataclass(frozen=True, slots=True)
class Code:
    """One code. ``text`` is for support staff; ``wait`` in seconds, where the vendor asks for one and names none."""

    error: type[SendError]
    text: str
    wait: float | None = None
    suppress: bool = False


class Codes:
    """A vendor's codes and the ``page`` that documents them. Built from (error class -> code -> text for staff)."""

    def __init__(self, page: str, table: Mapping[type[SendError], Mapping[str, str | Code]]) -> None:
        self.page = page
        self._codes: dict[str, Code] = {}
        for error, rows in table.items():
            for code, text in rows.items():
                if code in self._codes:
                    raise ValueError(f"the code {code} stands twice in the table of {page}")
                self._codes[code] = text if isinstance(text, Code) else Code(error, text)

    def items(self) -> list[tuple[str, Code]]:
        """Every code with what it means, as the table has them."""
        return list(self._codes.items())

    def __contains__(self, code: str) -> bool:
        return code in self._codes

    def error(self, code: str, said: str = "", *, retry_after: float | None = None) -> SendError | None:
        """What ``code`` means, with the vendor's own words behind ours; None for one that is not in the table."""
        known = self._codes.get(code)
        if known is None:
            return None
        detail = f"{known.text}: {said}" if said and said != code else known.text
        if issubclass(known.error, Throttled):
            return known.error(code, detail, retry_after=retry_after if retry_after is not None else known.wait)
        if issubclass(known.error, RecipientRefused):
            return known.error(code, detail, suppress=known.suppress)
        return known.error(code, detail)
