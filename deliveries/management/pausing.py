"""What `pause` and `resume` share: their flags, and what each flag means."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError

from channels.media import MEDIA
from deliveries.management.command import Command as Base
from deliveries.management.command import account_named, batch_with, service_named
from deliveries.models.control import PauseScope


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be held or let go: as the database has it, and in words."""

    scope: PauseScope
    value: str
    words: str


class PauseCommand(Base):
    """A command about what must not be claimed."""

    examples = {"": [{"scope": "channel", "value": "sms", "changed": True}]}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--channel", help="what goes over this channel")
        parser.add_argument("--account", help="what goes through this account; with --service, that service's account")
        parser.add_argument("--service", help="the messages of this service; with --account, whose account it is")
        parser.add_argument("--batch", metavar="ID", help="the messages of this batch")
        parser.add_argument("--reason", default="", help="why, for the audit")
        self.add_json(parser)

    def targets(self, options: dict[str, Any]) -> list[Target]:
        """What every flag names; everything when there is none."""
        return list(_targets(options)) or [Target(PauseScope.ALL, "", "everything")]

    def tell(self, done: list[tuple[Target, bool]], *, changed: str, unchanged: str, as_json: bool) -> None:
        """Say of each target whether it changed, such as ``("is paused", "was paused already")``."""
        if as_json:
            self.give([{"scope": str(t.scope), "value": t.value, "changed": made} for t, made in done])
        for target, made in done:
            self.say(f"{target.words[:1].upper()}{target.words[1:]} {changed if made else unchanged}.")


def _targets(options: dict[str, Any]) -> Iterator[Target]:
    if options["channel"]:
        if options["channel"] not in MEDIA:
            raise CommandError(f"{options['channel']!r} is not a channel; one of {', '.join(MEDIA)}")
        yield Target(PauseScope.CHANNEL, options["channel"], f"channel {options['channel']}")
    if options["account"]:
        service = service_named(options["service"]) if options["service"] else None
        account = account_named(options["account"], service)
        yield Target(PauseScope.ACCOUNT, str(account.pk), f"account {account.name}")
    elif options["service"]:
        service = service_named(options["service"])
        yield Target(PauseScope.SERVICE, str(service.pk), f"service {service.name}")
    if options["batch"]:
        batch = batch_with(options["batch"])
        yield Target(PauseScope.BATCH, str(batch.pk), f"batch {batch.pk}")
