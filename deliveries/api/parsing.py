"""Bodies: strict JSON and nothing else. Called for whole bodies, and line by line for NDJSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the member {twice[:64]!r} is given twice")
    return found


def strict(raw: bytes) -> Any:
    """The JSON value of ``raw``. Raises ``ValueError`` for NaN, double members, bad UTF-8 and depths that nobody means."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


class StrictJSONParser(BaseParser):
    """DRF's parser for every JSON body."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return strict(stream.read())
        except ValueError as error:
            raise ParseError(f"The body is not valid JSON: {error}. Nothing was stored.") from error
