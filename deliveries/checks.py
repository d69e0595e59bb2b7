"""System checks of the service, run by every management command and at the start of every process."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def postgresql_only(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """The claim, the partitions and the locks are PostgreSQL's."""
    engine = settings.DATABASES["default"]["ENGINE"]
    if engine.endswith("postgresql"):
        return []
    return [
        Error(
            f"Chaski runs on PostgreSQL only, not on {engine}.",
            hint="Set DATABASE_URL=postgres://...",
            id="chaski.E001",
        )
    ]


@register()
def own_channels_package(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """The PyPI package `channels` (django-channels) has our package's name and would shadow it."""
    spec = importlib.util.find_spec("channels")
    here = Path(settings.BASE_DIR) / "channels"
    if spec is not None and spec.origin is not None and Path(spec.origin).parent == here:
        return []
    return [
        Error(
            "The package `channels` that Python finds is not Chaski's.",
            hint="Uninstall `channels` (django-channels) from this environment and put this folder on PYTHONPATH.",
            id="chaski.E002",
        )
    ]
