"""`manage.py arm`: let a database go that was restored from a backup, after looking at what it would send again."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from deliveries import restoring
from deliveries.lineage import Standing
from deliveries.management.command import Command as Base
from deliveries.management.command import actor
from deliveries.restoring import Group, Verdict

#: Whoever has decided wants to arm; the picture may take so long then.
PICTURE_SECONDS = 60.0


class Command(Base):
    help = (
        "Show what a database that was restored from a backup would send again and, with --before and --reason, let it go."
        " Nothing is sent until then; acceptance goes on."
    )
    examples = {
        "": {
            "held": True,
            "reason": "the database is that of 2030-01-31 03:00:00 UTC (count 7), and was seen further on (count 9): ...",
            "backup_at": "2030-01-31T03:00:00+00:00",
            "held_at": "2030-02-01T08:00:00+00:00",
            "decided": None,
            "unfinished": [
                {
                    "channel": "sms",
                    "service": "shop",
                    "callbacks": False,
                    "before": True,
                    "messages": 12,
                    "begun": 2,
                    "in_doubt": 1,
                    "late": 3,
                    "receipts": 0,
                    "oldest_at": "2030-01-31T02:00:00+00:00",
                    "newest_at": "2030-01-31T02:59:59+00:00",
                }
            ],
        }
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--before",
            type=Verdict,
            choices=list(Verdict),
            metavar="{send,hold,expire}",
            help="what becomes of messages from before: send (again, perhaps), hold (in doubt, for people), expire",
        )
        parser.add_argument("--reason", default="", help="why, for the audit; without it nothing is let go")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        verdict, reason = options["before"], options["reason"].strip()
        if bool(verdict) != bool(reason):
            raise CommandError("--before and --reason go together: what becomes of older messages, and why")
        standing = restoring.standing()
        found = self._picture(standing, decided=bool(verdict))
        self._tell(standing, found)
        decided = self._arm(verdict, reason) if verdict else None
        if options["json"]:
            self.give(
                {
                    "held": standing.held and decided is None,
                    "reason": standing.reason,
                    "backup_at": standing.advanced_at if standing.held else None,
                    "held_at": standing.held_at,
                    "decided": decided,
                    "unfinished": None if found is None else [asdict(group) for group in found],
                }
            )

    def _picture(self, standing: Standing, *, decided: bool) -> list[Group] | None:
        """What is unfinished; None where that cannot be seen and the decision is made already: it stops nobody then."""
        if standing.held_at is None:
            return []
        try:
            return restoring.groups(standing.held_at, PICTURE_SECONDS if decided else None)
        except DatabaseError as error:
            if not decided:
                raise CommandError(f"{standing.reason}. {_NO_PICTURE.format(error=error)} {_ANYWAY}") from error
            self.say(_NO_PICTURE.format(error=error))
            return None

    def _arm(self, verdict: Verdict, reason: str) -> int:
        try:
            decided = restoring.arm(verdict, actor=actor(), reason=reason)
        except restoring.NotHeld as error:
            raise CommandError(str(error)) from error
        self.say(f"The database is armed; {decided:,} older messages: {_OUTCOMES[verdict]}.")
        return decided

    def _tell(self, standing: Standing, found: list[Group] | None) -> None:
        if not standing.held:
            self.say("The database is not held.")
            return
        self.say(f"HELD: {standing.reason}.")
        self.say(f"Last sign of life before the backup: {standing.advanced_at:%Y-%m-%d %H:%M:%S} UTC.")
        if found is None:
            return
        for group in found:
            self.say(f"  {_words(group, standing.advanced_at)}")
        self.say("Nothing is unfinished." if not found else _CHOICES)


_NO_PICTURE = "What is unfinished could not be counted: {error}."
_ANYWAY = "Arming works without it: give --before and --reason."
_OUTCOMES = {
    Verdict.SEND: "sent when due, as if nothing had happened",
    Verdict.HOLD: "in doubt, see the admin or `resolve`",
    Verdict.EXPIRE: "expired; `redeliver --status expired --code restored` sends those that must go",
}
_CHOICES = (
    "Whether those from before were sent after the backup, this database cannot know. Decide, then arm:\n"
    "  manage.py arm --before hold --reason ...    in doubt, for people to resolve one by one\n"
    "  manage.py arm --before expire --reason ...  expired; what must go is redelivered by hand\n"
    "  manage.py arm --before send --reason ...    sent when due: people may get them twice\n"
    "In each case what was accepted since goes out, and callbacks are told again."
)


def _words(group: Group, backup_at: datetime) -> str:
    what = "callbacks" if group.callbacks else "messages"
    when = "from before" if group.before else "accepted since"
    details = [
        f"{group.begun:,} begun",
        f"{group.in_doubt:,} in doubt already",
        f"{group.late:,} past their deadline",
        f"{group.receipts:,} receipts",
    ]
    ages = f"{_age(group.oldest_at, backup_at)} to {_age(group.newest_at, backup_at)}"
    return f"{group.channel} of {group.service}: {group.messages:,} {what} {when}, {ages}; {', '.join(details)}"


def _age(at: datetime, backup_at: datetime) -> str:
    """Relative to the backup, to the second."""
    by = timedelta(seconds=round((backup_at - at).total_seconds()))
    return f"{by} before the backup" if by >= timedelta(0) else f"{-by} after it"
