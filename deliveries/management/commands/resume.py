"""`manage.py resume`: the end of a pause, or of an account's stop."""

from __future__ import annotations

from typing import Any

from deliveries import acts
from deliveries.management.command import actor
from deliveries.management.pausing import PauseCommand
from deliveries.models import Pause


class Command(PauseCommand):
    help = "Claim again what was paused, or what an account's wrong credentials had stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        done = [
            (target, acts.resume(target.scope, target.value, actor=actor(), reason=options["reason"]))
            for target in self.targets(options)
        ]
        self.tell(done, changed="goes on", unchanged="was not paused", as_json=options["json"])
        left = Pause.objects.count()
        if left:
            self.say(f"{left} other pauses are in force; `manage.py doctor` counts them, the same flags end each.")
