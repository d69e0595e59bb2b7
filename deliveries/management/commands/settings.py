"""`manage.py settings`: the effective settings with their source."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from deliveries.management.command import Command as Base


class Command(Base):
    help = "Print every setting, its value and where it came from. Secrets are not shown."
    examples = {
        "": [
            {
                "name": "CHASKI_ENV",
                "value": "development",
                "source": "default",
                "help": "development, test or production",
            }
        ]
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [
            {
                "name": name,
                "value": "(set)" if setting.variable.secret and setting.value else setting.value,
                "source": setting.source,
                "help": setting.variable.help,
            }
            for name, setting in settings.CHASKI_SETTINGS.items()
        ]
        if options["json"]:
            self.give(rows)
            return
        for row in rows:
            self.stdout.write(f"{row['name']:<26} {row['value']!s:<42} {row['source']:<12} {row['help']}")
