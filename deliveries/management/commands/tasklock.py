"""`manage.py tasklock`: writes down the names and arguments of all tasks, or tells what a change of them would break."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from celery import current_app
from django.core.management.base import CommandError

from deliveries import task_contract
from deliveries.management.command import Command as Base

BREAKS = (
    "Old and new processes run side by side while a release goes out. Mend the code, or, when no process and no task of the"
    " old release is left anywhere, run `manage.py tasklock --breaking`."
)
STALE = "deliveries/tasks.lock.json is stale, and nothing breaks: write it again with `manage.py tasklock`."


class Command(Base):
    help = "Write the names, arguments and versions of all tasks to deliveries/tasks.lock.json, unless that breaks old ones."

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--check", action="store_true", help="write nothing; fail where the file differs")
        choice.add_argument(
            "--breaking", action="store_true", help="write it although old processes cannot live with it"
        )

    def handle(self, *args: Any, check: bool, breaking: bool, **options: Any) -> None:
        current_app.loader.import_default_modules()
        contract, lock = task_contract.of(current_app), task_contract.LOCK
        if lock.exists() and not breaking:
            broken = list(task_contract.breaks(task_contract.read(lock), contract))
            if broken:
                raise CommandError("\n".join([*broken, BREAKS]))
        stale = not lock.exists() or lock.read_text() != task_contract.text(contract)
        if stale and check:
            raise CommandError(STALE)
        if stale:
            lock.write_text(task_contract.text(contract))
            self.say(f"Wrote deliveries/{lock.name}: {len(contract.tasks)} tasks.")
