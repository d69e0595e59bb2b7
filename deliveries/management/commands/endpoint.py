"""`manage.py endpoint set|off`: where a service is told its messages' events."""

from __future__ import annotations

import base64
import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from channels.base import InvalidRecipient
from channels.media import MEDIA
from chaski.vocabulary import Status
from deliveries.acts import audit
from deliveries.delivery.accounts import owner
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, service_named
from deliveries.models import Account, Endpoint, Service
from deliveries.secrets import Unsealable, seal, unseal

ACCOUNT_NAME = "callbacks"


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
        unknown = sorted(set(events) - {str(status) for status in Status})
        if unknown:
            raise CommandError(f"there is no event {', '.join(unknown)}; there is {', '.join(map(str, Status))}")
        try:
            url = MEDIA["webhook"].normalise(options["url"])
        except InvalidRecipient as error:
            raise CommandError(f"the URL {error}") from error
        secret = self._set(service, url, events, options["base_url"])
        if options["json"]:
            self.give({"service": service.name, "url": url, "events": events, "secret": secret})
            return
        self.say(f"{service.name} is told at {url}. Its signing secret is shown this once:")
        self.stdout.write(secret)

    def _off(self, service: Service, *, as_json: bool) -> None:
        with transaction.atomic():
            changed = bool(Endpoint.objects.filter(service=service, active=True).update(active=False))
            audit(actor(), "endpoint_off", f"service:{service.pk}")
        if as_json:
            self.give({"service": service.name, "changed": changed})
        self.say(f"{service.name} is told nothing any more." if changed else f"{service.name} was told nothing.")

    @staticmethod
    @transaction.atomic
    def _set(service: Service, url: str, events: list[str], base_url: str) -> str:
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        account, _ = Account.objects.get_or_create(
            service=service, name=ACCOUNT_NAME, defaults={"channel": "webhook", "provider": "webhook", "priority": 1000}
        )
        if account.channel != "webhook":
            raise CommandError(
                f"{service.name} has an account {ACCOUNT_NAME!r} on {account.channel}; it must be renamed"
            )
        account.options = {"base_url": base_url} if base_url else {}
        account.secrets = seal(owner(account.public_id), {"secret": secret, **_previous(account)})
        account.save()
        Endpoint.objects.update_or_create(
            service=service, defaults={"url": url, "events": events, "account": account, "active": True}
        )
        audit(actor(), "endpoint_set", f"service:{service.pk}")
        return secret


def _previous(account: Account) -> dict[str, str]:
    """The secret until now: both sign until the next `endpoint set`, so that receivers can move to the new one."""
    try:
        before = unseal(owner(account.public_id), bytes(account.secrets)).get("secret")
    except Unsealable:
        return {}
    return {"previous_secret": before} if before else {}
