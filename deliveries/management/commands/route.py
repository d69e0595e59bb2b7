"""`manage.py route set`: which accounts a service uses on a channel."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from channels.media import MEDIA
from deliveries.acts import audit
from deliveries.management.command import Command as Base
from deliveries.management.command import account_named, actor, service_named
from deliveries.models import Route


class Command(Base):
    help = "Share a service's messages on a channel among accounts, by weight."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        put = verbs.add_parser("set", help="replace the routes of a service on a channel; no account removes them")
        put.add_argument("service")
        put.add_argument("channel", choices=list(MEDIA))
        put.add_argument("accounts", nargs="*", metavar="ACCOUNT[:WEIGHT]")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        service = service_named(options["service"])
        Route.objects.filter(service=service, channel=options["channel"]).delete()
        for given in options["accounts"]:
            name, _, weight = given.partition(":")
            account = account_named(name, service)
            if account.channel != options["channel"]:
                raise CommandError(f"account {name!r} serves {account.channel}, not {options['channel']}")
            if weight and not weight.isdigit():
                raise CommandError(f"the weight in {given!r} is not a whole number")
            Route.objects.create(service=service, channel=options["channel"], account=account, weight=int(weight or 1))
        audit(actor(), "route_set", f"service:{service.pk}", options["channel"])
        self.say(
            f"{service.name} sends {options['channel']} through {', '.join(options['accounts']) or 'its default'}."
        )
