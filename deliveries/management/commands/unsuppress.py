"""`manage.py unsuppress`: a recipient may be written to again."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.suppressing import SuppressionCommand


class Command(SuppressionCommand):
    help = "Take a recipient off the suppression list."

    def handle(self, *args: Any, **options: Any) -> None:
        recipient, service_id = self.whom(options)
        gone = acts.unsuppress(
            options["channel"], recipient, service_id=service_id, actor=actor(), reason=options["reason"]
        )
        if options["json"]:
            self.give({"channel": options["channel"], "to": recipient, "changed": gone})
        self.say("It may be written to again." if gone else "It was not suppressed.")
