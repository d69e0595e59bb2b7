"""`manage.py endpoint set|off`: where a service is told its messages' events."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from channels.base import InvalidRecipient
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, service_named
from deliveries.models import Endpoint, Service
from deliveries.setting_up import NameTaken, UnknownEvent, end_endpoint, set_endpoint


class Command(Base):
    help = "Set a service's callback URL. The signing secret (Standard Webhooks) is printed once."
    examples = {
        "set": {
            "service": "shop",
            "url": "https://shop.example.com/chaski",
            "events": ["delivered", "failed"],
            "secret": "whsec_...",
        },
        "off": {"service": "shop", "changed": True},
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        put = verbs.add_parser("set", help="set the URL and print the signing secret, once")
        put.add_argument("service", metavar="SERVICE", help="who is told")
        put.add_argument("url", metavar="URL", help="where; https, without credentials")
        put.add_argument(
            "--events", nargs="*", default=[], metavar="STATUS", help="only these statuses; all if left out"
        )
        put.add_argument("--base-url", default="", help="an egress host that the requests go through")
        off = verbs.add_parser("off", help="tell nothing any more")
        off.add_argument("service", metavar="SERVICE", help="who is told nothing any more")
        for verb in (put, off):
            self.add_json(verb)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        service = service_named(options["service"])
        if verb == "off":
            self._off(service, as_json=options["json"])
            return
        events = [word for given in options["events"] for word in given.split(",") if word]
        try:
            secret = set_endpoint(service, options["url"], events, base_url=options["base_url"], actor=actor())
        except (UnknownEvent, NameTaken) as error:
            raise CommandError(str(error)) from error
        except InvalidRecipient as error:
            raise CommandError(f"the URL {error}") from error
        url = Endpoint.objects.get(service=service).url
        if options["json"]:
            self.give({"service": service.name, "url": url, "events": events, "secret": secret})
            return
        self.say(f"{service.name} is told at {url}. Its signing secret is shown this once:")
        self.stdout.write(secret)

    def _off(self, service: Service, *, as_json: bool) -> None:
        changed = end_endpoint(service, actor=actor())
        if as_json:
            self.give({"service": service.name, "changed": changed})
        self.say(f"{service.name} is told nothing any more." if changed else f"{service.name} was told nothing.")
