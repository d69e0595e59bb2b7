"""`manage.py up_report`: what became of some batches, by channel. `bin/up` prints it as a table."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from deliveries import reports
from deliveries.management.command import Command as Base


class Command(Base):
    help = "Counts and latencies of the messages of some batches, by channel."
    examples = {
        "": {
            "per_channel": {
                "...": {"sent": 240, "failed": 10, "retried": 5, "in_doubt": 0, "p50_ms": 40, "p99_ms": 900}
            }
        }
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("batches", nargs="+", metavar="BATCH_ID", help="the batches")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            batches = [UUID(given) for given in options["batches"]]
        except ValueError as error:
            raise CommandError("a batch id is a UUID") from error
        found = reports.per_channel(batches)
        if options["json"]:
            self.give({"per_channel": found})
            return
        for channel, row in found.items():
            self.say(f"{channel:<10} " + "  ".join(f"{name} {value}" for name, value in row.items()))
