"""Which providers exist. Read by intake, account set-up and the delivery engine.

Every module of this package that defines a named ``Provider`` is a provider: adding one is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import channels
from channels.base import Provider


class UnknownProvider(LookupError):
    """No provider of that name serves that channel; the text lists those that do."""


def _concrete(cls: type[Provider]) -> list[type[Provider]]:
    found = [cls] if isinstance(cls.__dict__.get("name"), str) else []
    for child in cls.__subclasses__():
        found += _concrete(child)
    return found


@cache
def providers() -> dict[tuple[str, str], type[Provider]]:
    """(channel, provider name) -> class, for every provider of this package."""
    for module in pkgutil.iter_modules(channels.__path__, "channels."):
        if not module.ispkg:
            importlib.import_module(module.name)
    known = _concrete(Provider)  # type: ignore[type-abstract]
    mine = [cls for cls in known if cls.__module__.startswith("channels.")]
    return {(channel, cls.name): cls for cls in mine for channel in cls.channels}


def provider_class(channel: str, name: str) -> type[Provider]:
    """The class that serves ``channel`` under ``name``. Raises ``UnknownProvider``."""
    try:
        return providers()[channel, name]
    except KeyError:
        there = sorted(provider for (served, provider) in providers() if served == channel)
        raise UnknownProvider(
            f"no provider {name!r} for channel {channel!r}; there is {', '.join(there) or 'none'}"
        ) from None
