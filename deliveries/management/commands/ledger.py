"""`manage.py ledger`: is every accepted message accounted for?"""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from deliveries import ledger
from deliveries.management.command import Command as Base
from deliveries.management.command import duration, leave


class Command(Base):
    help = "Check the conservation of messages and the invariants. Exit 0 balanced, 1 not, naming the rows."
    examples = {
        "": {
            "balanced": False,
            "accepted": 5,
            "final": 1,
            "handed_over": 1,
            "waiting": 1,
            "in_flight": 1,
            "in_doubt": 0,
            "redelivered": 0,
            "violations": [
                {
                    "invariant": 1,
                    "message_id": "01980000-0000-7000-8000-000000000000",
                    "detail": "accepted, and no message: api",
                }
            ],
        }
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--since", metavar="DURATION", help="only messages this young (90s, 5m, 1h, 7d); all if left out"
        )
        words = "JSON lines; see docs/reference/invariants.md"
        parser.add_argument("--told", type=Path, metavar="FILE", help=f"what clients were told: {words}")
        parser.add_argument("--accepted", type=Path, metavar="FILE", help=f"what providers accepted: {words}")
        parser.add_argument("--received", type=Path, metavar="FILE", help=f"what a callback endpoint got: {words}")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            since = datetime.now(UTC) - duration(options["since"]) if options["since"] else None
        except ValueError as error:
            raise CommandError(f"--since: {error}") from error
        files = ledger.Files(**{kind: options[kind] for kind in ("told", "accepted", "received")})
        try:
            found = ledger.check(since, files)
        except ledger.UnusableFile as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.give(found.as_dict())
        else:
            self._tell(found)
        leave(0 if found.balanced else 1)

    def _tell(self, found: ledger.Ledger) -> None:
        self.say(
            f"{found.accepted:,} accepted = {found.final:,} final + {found.handed_over:,} handed over"
            f" + {found.waiting:,} waiting + {found.in_flight:,} in flight + {found.in_doubt:,} in doubt"
            + (f"; {found.redelivered:,} redelivered" if found.redelivered else "")
        )
        for violation in found.violations:
            self.say(f"  invariant {violation.invariant}: {violation.message_id} {violation.detail}")
        self.say(
            "The ledger balances."
            if found.balanced
            else "THE LEDGER DOES NOT BALANCE. Look at the rows above with `trace`."
        )
