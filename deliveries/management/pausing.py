"""What `pause` and `resume` share: their flags, and what each flag means."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from channels.media import MEDIA
from deliveries.management.command import Command as Base
from deliveries.management.command import account_named, service_named
from deliveries.models.control import PauseScope


class PauseCommand(Base):
    """A command about what must not be claimed."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--channel")
        parser.add_argument("--account")
        parser.add_argument("--service")
        parser.add_argument("--batch")
        parser.add_argument("--reason", default="")

    def targets(self, options: dict[str, Any]) -> list[tuple[PauseScope, str, str]]:
        """(scope, value, words) for every flag given; everything when there is none."""
        return list(_targets(options)) or [(PauseScope.ALL, "", "everything")]


def _targets(options: dict[str, Any]) -> Iterator[tuple[PauseScope, str, str]]:
    if options["channel"]:
        if options["channel"] not in MEDIA:
            raise CommandError(f"{options['channel']!r} is not a channel; one of {', '.join(MEDIA)}")
        yield PauseScope.CHANNEL, options["channel"], f"channel {options['channel']}"
    if options["account"]:
        service = service_named(options["service"]) if options["service"] else None
        yield PauseScope.ACCOUNT, str(account_named(options["account"], service).pk), f"account {options['account']}"
    elif options["service"]:
        yield PauseScope.SERVICE, str(service_named(options["service"]).pk), f"service {options['service']}"
    if options["batch"]:
        try:
            yield PauseScope.BATCH, str(UUID(options["batch"])), f"batch {options['batch']}"
        except ValueError as error:
            raise CommandError(f"{options['batch']!r} is not a batch id") from error
