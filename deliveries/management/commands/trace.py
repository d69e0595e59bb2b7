"""`manage.py trace`: the whole life of one message in order."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from deliveries.management.command import Command as Base
from deliveries.management.command import message_with
from deliveries.trace import trace


class Command(Base):
    help = "Tell the whole life of one message: events, attempts with the provider's answers, receipts, acts."
    examples = {
        "": {
            "id": "01980000-0000-7000-8000-000000000000",
            "status": "queued",
            "channel": "sms",
            "provider": "twilio",
            "waiting_for": "retry",
            "waiting_until": "2030-01-31T12:00:00+00:00",
            "last_reply_at": None,
            "waiting_behind": None,
            "entries": [
                {
                    "at": "2030-01-31T11:59:00+00:00",
                    "kind": "event",
                    "words": "accepted and queued",
                    "data": {"...": "what the API shows of an event, an attempt, a receipt or an act"},
                }
            ],
        }
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("message_id", metavar="MESSAGE_ID", help="the message")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        message = message_with(options["message_id"])
        found = trace(message)
        if options["json"]:
            self.give(
                {
                    "id": message.pk,
                    "status": str(found.status),
                    "channel": message.channel,
                    "provider": message.provider,
                    "waiting_for": found.waiting.reason if found.waiting else None,
                    "waiting_until": found.waiting.until if found.waiting else None,
                    "last_reply_at": found.last_reply_at,
                    "waiting_behind": found.waiting.ahead.id if found.waiting and found.waiting.ahead else None,
                    "entries": [asdict(entry) for entry in found.entries],
                }
            )
            return
        self.stdout.write(f"{message.pk}  {message.channel} through {message.provider}  {found.status}")
        for entry in found.entries:
            self.stdout.write(f"  {entry.at:%Y-%m-%d %H:%M:%S.%f}  {entry.kind:<8} {entry.words}")
        if found.last_reply:
            self.stdout.write(f"  As far as Chaski was told, {found.last_reply}.")
        if found.waits:
            self.stdout.write(f"  It {found.waits}.")
