"""`manage.py resolve`: decide a message in doubt."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from deliveries import acts
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, message_with


class Command(Base):
    help = "Decide a message in doubt after looking at the provider's own records. Audited."
    examples = {"": {"id": "01980000-0000-7000-8000-000000000000", "verdict": "sent"}}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("message_id", metavar="MESSAGE_ID", help="the message in doubt")
        parser.add_argument("verdict", choices=["sent", "failed", "retry"], help="what became of it")
        parser.add_argument("--reason", required=True, help="how you know, for the audit")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        message = message_with(options["message_id"])
        try:
            acts.resolve(message, options["verdict"], actor=actor(), reason=options["reason"])
        except acts.NotInDoubt as error:
            raise CommandError(f"{message.pk}: {error}") from error
        if options["json"]:
            self.give({"id": message.pk, "verdict": options["verdict"]})
        self.say(f"{message.pk} is resolved as {options['verdict']}.")
