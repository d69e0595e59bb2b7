"""`manage.py doctor`: is everything there that a message needs, and if not, what mends it?"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from deliveries import diagnosis
from deliveries.findings import Level
from deliveries.management.command import Command as Base
from deliveries.management.command import leave

_EXIT = {Level.OK: 0, Level.DEGRADED: 3, Level.BROKEN: 1}


class Command(Base):
    help = "Check database, broker, workers, relay, beat, clock and accounts. Exit 0 ok, 3 degraded, 1 broken."
    examples = {
        "": {
            "status": "broken",
            "findings": [
                {
                    "check": "relay",
                    "level": "broken",
                    "found": "none was seen in the last 20 seconds",
                    "fix": "Start one: `manage.py relay`.",
                }
            ],
        }
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        findings = diagnosis.examine()
        worst = diagnosis.worst(findings)
        if options["json"]:
            rows = [{"check": f.check, "level": str(f.level), "found": f.found, "fix": f.fix} for f in findings]
            self.give({"status": str(worst), "findings": rows})
        else:
            for finding in findings:
                self.say(f"{finding.level:<9} {finding.check:<12} {finding.found}")
                if finding.fix:
                    self.say(f"{'':<22} -> {finding.fix}")
        leave(_EXIT[worst])
