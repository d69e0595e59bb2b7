"""`manage.py redeliver`: send failed messages again, after a rehearsal."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet

from channels.media import MEDIA
from deliveries import acts
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, duration
from deliveries.models import Message, Service

STATUSES = ("failed", "undelivered", "expired")


class Command(Base):
    help = "Send messages again that ended badly. --dry-run tells how many, which codes and how long."
    examples = {
        "": {"messages": 120, "codes": {"...": 120}, "seconds": 2.4, "redelivered": 0, "dry_run": True},
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--status", choices=STATUSES, required=True, help="how they ended")
        parser.add_argument(
            "--since", required=True, metavar="DURATION", help="only those that ended this lately: 90s, 5m, 1h, 7d"
        )
        parser.add_argument("--channel", choices=list(MEDIA), metavar="CHANNEL", help="only this channel")
        parser.add_argument("--code", help="only this error code")
        parser.add_argument("--limit", type=int, default=10_000, help="at most so many, the oldest first")
        parser.add_argument("--rate", type=float, default=50.0, metavar="PER_SECOND", help="so many a second")
        parser.add_argument("--dry-run", action="store_true", help="only tell how many, which codes and how long")
        parser.add_argument("--reason", default="bulk redeliver", help="why, for the audit")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rate"] <= 0 or options["limit"] <= 0:
            raise CommandError("--rate and --limit must be above 0")
        chosen = self._chosen(options)
        codes = Counter(chosen.values_list("error_code", flat=True)[: options["limit"]])
        count = sum(codes.values())
        plan = {"messages": count, "codes": dict(codes), "seconds": round(count / options["rate"], 1)}
        self.say(f"{count:,} messages, about {plan['seconds']:g} s at {options['rate']:g} a second.")
        for code, times in codes.most_common(20):
            self.say(f"  {times:>8,}  {code or '(no code)'}")
        done = 0 if options["dry_run"] else self._run(chosen, options)
        if options["json"]:
            self.give({**plan, "redelivered": done, "dry_run": options["dry_run"]})

    @staticmethod
    def _chosen(options: dict[str, Any]) -> QuerySet[Message]:
        try:
            since = datetime.now(UTC) - duration(options["since"])
        except ValueError as error:
            raise CommandError(f"--since: {error}") from error
        chosen = Message.objects.filter(
            # Named one by one, so that the index by service, channel and status is walked, not the history.
            service_id__in=list(Service.objects.values_list("pk", flat=True)),
            channel__in=[options["channel"]] if options["channel"] else list(MEDIA),
            status=options["status"],
            updated_at__gte=since,
        ).order_by("id")
        return chosen.filter(error_code=options["code"]) if options["code"] else chosen

    def _run(self, chosen: QuerySet[Message], options: dict[str, Any]) -> int:
        done = 0
        for message in list(chosen[: options["limit"]]):
            try:
                acts.redeliver(message, actor=actor(), reason=options["reason"])
                done += 1
            except acts.NotRedeliverable:
                continue  # somebody was quicker
            time.sleep(1 / options["rate"])
        self.say(f"{done:,} messages are queued again.")
        return done
