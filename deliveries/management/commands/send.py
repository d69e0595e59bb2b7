"""`manage.py send`: send one message from the shell."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from channels.media import MEDIA
from deliveries import intake
from deliveries.management.command import Command as Base
from deliveries.management.command import leave, service_named
from deliveries.models import Message, Service
from deliveries.models.messages import Origin
from deliveries.trace import trace


class Command(Base):
    help = "Send one message; with --wait show what became of it (exit 0 when it was sent)."
    examples = {"": {"id": "01980000-0000-7000-8000-000000000000", "status": "queued"}}

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("channel", choices=list(MEDIA), metavar="CHANNEL", help="the channel")
        parser.add_argument("to", metavar="TO", help="the recipient, in any form that the channel takes")
        parser.add_argument("--text", default="Hello from Chaski.", help="what to say")
        parser.add_argument("--subject", default="", help="the subject of an e-mail")
        parser.add_argument("--service", help="the sender; needed where there are several services")
        parser.add_argument(
            "--wait", type=float, default=0.0, metavar="SECONDS", help="wait for what becomes of it; exit 0 when sent"
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        given = {name: options[name] for name in ("channel", "to", "text", "subject") if options[name]}
        try:
            checked = intake.draft(self._sender(options["service"]), given)
        except intake.InvalidMessage as error:
            raise CommandError(str(error)) from error
        accepted = intake.accept([checked], origin=Origin.SHELL)[0]
        self.say(f"Accepted as {accepted.id}.")
        message = self._wait(accepted.id, options["wait"])
        now = trace(message)
        if options["json"]:
            self.give({"id": accepted.id, "status": str(now.status)})
        if options["wait"]:
            self.say(f"It is {now.status}." + (f" It {now.waits}." if now.waits else ""))
            if message.error_class:
                self.say(f"The last answer: {message.error_class} {message.error_code} {message.error_detail}")
            leave(0 if message.status in ("sent", "delivered", "read") else 1)

    @staticmethod
    def _sender(name: str | None) -> Service:
        if name:
            return service_named(name)
        services = list(Service.objects.order_by("pk")[:2])
        if len(services) == 1:
            return services[0]
        raise CommandError("say who sends with --service NAME; `manage.py service create NAME` makes one")

    @staticmethod
    def _wait(message_id: Any, seconds: float) -> Message:
        until = time.monotonic() + seconds
        while True:
            message = Message.objects.get(pk=message_id)
            if message.status not in ("queued", "sending") or time.monotonic() >= until:
                return message
            time.sleep(0.1)
