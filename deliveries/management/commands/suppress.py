"""`manage.py suppress`: never write to a recipient on a channel."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.suppressing import SuppressionCommand


class Command(SuppressionCommand):
    help = "Never write to a recipient on a channel; checked just before every call."

    def handle(self, *args: Any, **options: Any) -> None:
        recipient, service_id = self.whom(options)
        made = acts.suppress(
            options["channel"], recipient, service_id=service_id, actor=actor(), reason=options["reason"]
        )
        if options["json"]:
            self.give({"channel": options["channel"], "to": recipient, "changed": made})
        self.say("Suppressed." if made else "It was suppressed already.")
