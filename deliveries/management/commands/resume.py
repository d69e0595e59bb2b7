"""`manage.py resume`: the end of a pause, or of an account's stop."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.pausing import PauseCommand


class Command(PauseCommand):
    help = "Claim again what was paused, or what an account's wrong credentials had stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        for scope, value, words in self.targets(options):
            ended = acts.resume(scope, value, actor=actor(), reason=options["reason"])
            self.say(f"Resumed {words}." if ended else f"{words.capitalize()} was not paused.")
