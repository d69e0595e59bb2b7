"""`manage.py reference`: writes docs/reference from the code, or tells what is stale."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings

from deliveries.management.command import Command as Base
from deliveries.management.command import leave
from deliveries.management.reference import pages


class Command(Base):
    help = "Write the reference of commands, settings and API in docs/reference from the code."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        folder = Path(settings.BASE_DIR) / "docs" / "reference"
        stale = {name: text for name, text in pages().items() if _kept(folder / name) != text}
        for name, text in stale.items():
            if check:
                self.say(f"docs/reference/{name} is stale; write it again with `manage.py reference`.")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
            self.say(f"Wrote docs/reference/{name}.")
        leave(1 if check and stale else 0)


def _kept(page: Path) -> str:
    return page.read_text() if page.exists() else ""
