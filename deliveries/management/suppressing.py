"""What `suppress` and `unsuppress` share: whom they are about."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from channels.base import InvalidRecipient
from channels.media import MEDIA
from deliveries.management.command import Command as Base
from deliveries.management.command import service_named


class SuppressionCommand(Base):
    """A command about one recipient on one channel."""

    examples = {"": {"channel": "sms", "to": "+56912345678", "changed": True}}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("channel", choices=list(MEDIA), metavar="CHANNEL", help="the channel")
        parser.add_argument("to", metavar="TO", help="the recipient, in any form that the channel takes")
        parser.add_argument("--service", help="only for this service; for all if left out")
        parser.add_argument("--reason", default="asked by an operator", help="why, for the audit")
        self.add_json(parser)

    @staticmethod
    def whom(options: dict[str, Any]) -> tuple[str, int | None]:
        """(the normalised recipient, the service's id or None for all)."""
        try:
            recipient = MEDIA[options["channel"]].normalise(options["to"])
        except InvalidRecipient as error:
            raise CommandError(f"{options['to']!r} {error}") from error
        return recipient, service_named(options["service"]).pk if options["service"] else None
