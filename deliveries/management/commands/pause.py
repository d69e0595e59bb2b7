"""`manage.py pause`: the kill switch."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.pausing import PauseCommand


class Command(PauseCommand):
    help = "Stop claiming within two seconds: everything, or a channel, account, service or batch. Acceptance goes on."

    def handle(self, *args: Any, **options: Any) -> None:
        done = [
            (target, acts.pause(target.scope, target.value, actor=actor(), reason=options["reason"]))
            for target in self.targets(options)
        ]
        self.tell(done, changed="is paused", unchanged="was paused already", as_json=options["json"])
        self.say("What is under way finishes; the rest waits and is still accepted. `manage.py resume` lets it go.")
