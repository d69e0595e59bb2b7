"""What a message's own options may hold: checked at the door, and once more before a request is made of them.

Called by providers. A value of the wrong kind that reached the code which builds a request would raise there, and
count as in doubt though nothing had left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from channels.base import ContentRefused

_SURROGATE = re.compile("[\ud800-\udfff]")

#: Says what is wrong with a value, or nothing.
Rule = Callable[[Any], str]


def a(kind: type, words: str) -> Rule:
    """Exactly ``kind`` as JSON has it: true is no number."""
    return lambda value: "" if type(value) is kind else f"must be {words}"


def text(value: Any) -> str:
    """A text that can be written as UTF-8."""
    whole_characters = isinstance(value, str) and not _SURROGATE.search(value)
    return "" if whole_characters else "must be a text of whole characters"


def texts(value: Any) -> str:
    """An object of texts by texts."""
    fits = isinstance(value, dict) and not any(text(each) for pair in value.items() for each in pair)
    return "" if fits else "must be an object whose values are texts"


FLAG = a(bool, "true or false")
NUMBER = a(int, "a whole number")
OBJECT = a(dict, "an object")


def one_of(*words: str) -> Rule:
    """One of ``words``."""
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def whole(least: int, most: int) -> Rule:
    """A whole number from ``least`` to ``most``."""
    return lambda value: (
        "" if type(value) is int and least <= value <= most else f"must be a whole number from {least} to {most}"
    )


def faults(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, str]:
    """``options.NAME`` -> what is wrong with it, as ``Provider.refuse`` tells it. None counts as not given."""
    found = {name: rule(options[name]) for name, rule in rules.items() if options.get(name) is not None}
    return {f"options.{name}": fault for name, fault in found.items() if fault}


def given(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Those of ``options`` that ``rules`` knows and that hold something, in the rules' order."""
    return {name: options[name] for name in rules if options.get(name) is not None}


def insist(found: Mapping[str, str]) -> None:
    """Raise ``ContentRefused`` where there are ``faults`` after all: an account may have changed since the door."""
    if found:
        raise ContentRefused("invalid_message", "; ".join(f"{name} {fault}" for name, fault in found.items()))
