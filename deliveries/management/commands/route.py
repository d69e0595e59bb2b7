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
from deliveries.models import Route, Service

_WEIGHT_LIMIT = 1000


class Command(Base):
    help = "Share a service's messages on a channel among accounts, by weight; what is down is stood in for."
    examples = {"set": {"service": "shop", "channel": "sms", "accounts": [{"account": "main", "weight": 3}]}}

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        put = verbs.add_parser("set", help="replace the routes of a service on a channel; no account removes them")
        put.add_argument("service", metavar="SERVICE", help="whose messages")
        put.add_argument("channel", choices=list(MEDIA), metavar="CHANNEL", help="on which channel")
        put.add_argument(
            "accounts",
            nargs="*",
            metavar="ACCOUNT[:WEIGHT]",
            help="through which accounts; the weight is 1 if left out, and 0 makes it stand in for those that are down",
        )
        self.add_json(put)

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        service = service_named(options["service"])
        routes = [_route(service, options["channel"], given) for given in options["accounts"]]
        names = [route.account.name for route in routes]
        if len(set(names)) < len(names):
            raise CommandError(f"{max(names, key=names.count)!r} is named twice; give it once, with a weight")
        if routes and not any(route.weight for route in routes):
            raise CommandError("every weight is 0, so nobody has anything to stand in for; give one account a weight")
        for place, route in enumerate(route for route in routes if not route.weight):
            route.position = 1 + place
        Route.objects.filter(service=service, channel=options["channel"]).delete()
        Route.objects.bulk_create(routes)
        if options["json"]:
            shares = [{"account": route.account.name, "weight": route.weight} for route in routes]
            self.give({"service": service.name, "channel": options["channel"], "accounts": shares})
        audit(actor(), "route_set", f"service:{service.pk}", options["channel"])
        self.say(
            f"{service.name} sends {options['channel']} through {', '.join(options['accounts']) or 'its default'}."
        )


def _route(service: Service, channel: str, given: str) -> Route:
    name, colon, weight = given.partition(":")
    account = account_named(name, service)
    if account.channel != channel:
        raise CommandError(f"account {name!r} serves {account.channel}, not {channel}")
    share = weight if colon else "1"
    if not (share.isascii() and share.isdecimal() and len(share) < 6 and int(share) <= _WEIGHT_LIMIT):
        raise CommandError(f"the weight in {given!r} is not a whole number from 0 to {_WEIGHT_LIMIT}")
    return Route(service=service, channel=channel, account=account, weight=int(share))
