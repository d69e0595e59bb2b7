"""`manage.py pause`: the kill switch."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.pausing import PauseCommand


class Command(PauseCommand):
    help = "Stop claiming within two seconds: everything, or a channel, account, service or batch. Acceptance goes on."

    def handle(self, *args: Any, **options: Any) -> None:
        for scope, value, words in self.targets(options):
            made = acts.pause(scope, value, actor=actor(), reason=options["reason"])
            self.say(f"Paused {words}." if made else f"{words.capitalize()} was paused already.")
        self.say("What is under way finishes; the rest waits and is still accepted. `manage.py resume` lets it go.")
