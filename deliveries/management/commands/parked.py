"""`manage.py parked`: tasks from the broker that no worker could take, to look at, publish again or discard."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from deliveries import parking
from deliveries.doorbell import BROKER_ERRORS
from deliveries.management.command import Command as Base
from deliveries.management.command import actor
from deliveries.models import Parked

SHOWN = 50
ROW = {
    "id": 7,
    "reason": "unknown_task",
    "detail": "",
    "queue": "normal",
    "name": "deliver.fax",
    "task_id": "01980000-0000-7000-8000-000000000000",
    "times": 3,
    "first_at": "2026-01-01T00:00:00+00:00",
    "last_at": "2026-01-01T00:00:00+00:00",
    "payload": "[[], {}, {}]",
    "payload_chars": 12,
}


class Command(Base):
    help = "Tasks that no worker here could take as they were: of another release, or unreadable."
    examples = {
        "list": {"parked": [ROW]},
        "replay": {"id": 7, "published": True},
        "discard": {"id": 7, "discarded": True},
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="the newest, each with why it was parked and how often it came")
        listing.add_argument("--limit", type=int, default=SHOWN, help="at most so many")
        self.add_json(listing)
        for verb, words in (
            ("replay", "publish one again, once a release that knows it runs"),
            ("discard", "forget one"),
        ):
            one = verbs.add_parser(verb, help=words)
            one.add_argument("number", type=int, metavar="ID", help="its number in the list")
            one.add_argument("--reason", required=True, help="why, for the audit")
            self.add_json(one)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        if verb == "list":
            self._list(options)
        elif verb == "replay":
            self._replay(options)
        else:
            parked = _parked(options["number"])
            parking.discard(parked, actor=actor(), reason=options["reason"])
            self._told(options, "discarded")

    def _list(self, options: dict[str, Any]) -> None:
        rows = list(Parked.objects.order_by("-last_at")[: max(0, options["limit"])])
        for row in rows:
            name = row.name or "(no name)"
            self.say(f"{row.pk:>6}  {row.last_at:%Y-%m-%d %H:%M:%S}  {row.times:>6,} x  {row.queue}  {name}")
            self.say(f"        {row.get_reason_display()}{': ' + row.detail if row.detail else ''}")
        if not rows:
            self.say("Nothing is parked.")
        if options["json"]:
            self.give({"parked": [{field: getattr(row, field) for field in ROW} for row in rows]})

    def _replay(self, options: dict[str, Any]) -> None:
        parked = _parked(options["number"])
        try:
            parking.publish_again(parked, actor=actor(), reason=options["reason"])
        except parking.NotPublishable as error:
            raise CommandError(f"{options['number']}: {error}; `parked discard` forgets it") from error
        except BROKER_ERRORS as error:
            raise CommandError(f"the broker does not answer: {type(error).__name__}; nothing was done") from error
        self._told(options, "published")

    def _told(self, options: dict[str, Any], done: str) -> None:
        if options["json"]:
            self.give({"id": options["number"], done: True})
        self.say(f"{options['number']} is {done}.")


def _parked(number: int) -> Parked:
    found = Parked.objects.filter(pk=number).first()
    if found is None:
        raise CommandError(f"nothing is parked under {number}; `manage.py parked list` shows what is")
    return found
