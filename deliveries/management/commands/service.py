"""`manage.py service create|key|revoke|order|list`: applications that send through Chaski, and their keys."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import transaction

from deliveries.acts import audit
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, duration, service_named
from deliveries.models import Service
from deliveries.models.services import OrderThen
from deliveries.setting_up import add_key, revoke_key, set_order

_ORDER = {"order_wait_seconds": 300, "order_then": "skip"}
_KEY = {"id": 1, "name": "shop", "api_key": "ck_live_0123456789ab_..."}


class Command(Base):
    help = "Create a service, give it a further API key, revoke a key, say what a blocked head means, or list the services."
    examples = {
        "create": _KEY,
        "key": _KEY,
        "revoke": {"key_id": "0123456789ab", "revoked": True},
        "order": {"name": "shop", **_ORDER},
        "list": [{"id": 1, "name": "shop", "test": False, "keys": ["0123456789ab"], **_ORDER}],
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a service and print its API key, once")
        create.add_argument("name", metavar="NAME", help="letters, digits, hyphens and underscores")
        create.add_argument("--test", action="store_true", help="its messages reach the sandbox, never a provider")
        key = verbs.add_parser("key", help="print a further API key, for rotation")
        key.add_argument("name", metavar="NAME", help="the service")
        for verb in (create, key):
            verb.add_argument("--expires-in", metavar="DURATION", help="the key ends by itself: 90s, 5m, 1h, 7d")
        revoke = verbs.add_parser("revoke", help="revoke a key by its id")
        revoke.add_argument("key_id", metavar="KEY_ID", help="the part after ck_live_")
        order = verbs.add_parser("order", help="for how long messages wait behind a blocked one of their ordering key")
        order.add_argument("name", metavar="NAME", help="the service")
        order.add_argument(
            "--wait", metavar="DURATION", help="so long: 90s, 5m, 1h, 7d; without it until the blocked one ends"
        )
        order.add_argument(
            "--then",
            choices=OrderThen.values,
            default=str(OrderThen.SKIP),
            help="it steps aside for the next, or the rest behind it fails",
        )
        listing = verbs.add_parser("list", help="the services and their keys")
        for verb in (create, key, revoke, order, listing):
            self.add_json(verb)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        getattr(self, f"_{verb}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        service = Service(name=options["name"], test=options["test"])
        try:
            service.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        expires_at = _expiry(options["expires_in"])
        with transaction.atomic():
            service.save()
            audit(actor(), "service_create", f"service:{service.pk}")
            key = add_key(service, actor=actor(), expires_at=expires_at)
        self._show(service, key, options)

    def _key(self, options: dict[str, Any]) -> None:
        service = service_named(options["name"])
        key = add_key(service, actor=actor(), expires_at=_expiry(options["expires_in"]))
        self._show(service, key, options)

    def _show(self, service: Service, key: str, options: dict[str, Any]) -> None:
        if options["json"]:
            self.give({"id": service.pk, "name": service.name, "api_key": key})
            return
        self.say(f"Service {service.name} has the id {service.pk}. Its API key is shown this once:")
        self.stdout.write(key)

    def _revoke(self, options: dict[str, Any]) -> None:
        if not revoke_key(options["key_id"], actor=actor()):
            raise CommandError(f"there is no active key {options['key_id']!r}; `service list` shows them")
        if options["json"]:
            self.give({"key_id": options["key_id"], "revoked": True})
        self.say("Revoked; within two seconds no process takes it any more.")

    def _order(self, options: dict[str, Any]) -> None:
        service, then = service_named(options["name"]), OrderThen(options["then"])
        try:
            set_order(service, duration(options["wait"]) if options["wait"] else None, then, actor=actor())
        except ValidationError as error:
            raise CommandError("--wait: " + "; ".join(error.messages)) from error
        except ValueError as error:
            raise CommandError(f"--wait: {error}") from error
        if options["json"]:
            self.give({"name": service.name, **_order_of(service)})
        if service.order_wait_seconds is None:
            self.say("Messages wait behind a blocked one of their ordering key until that one ends.")
            return
        words = "that one steps aside" if then is OrderThen.SKIP else "those behind it fail"
        self.say(
            f"Messages wait {service.order_wait_seconds} s behind a blocked one of their ordering key; then {words}."
        )

    def _list(self, options: dict[str, Any]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "id": service.pk,
                "name": service.name,
                "test": service.test,
                "keys": [key.key_id for key in service.api_keys.all() if key.revoked_at is None],
                **_order_of(service),
            }
            for service in Service.objects.prefetch_related("api_keys").order_by("name")
        ]
        if options["json"]:
            self.give(rows)
            return
        for row in rows:
            self.say(f"{row['id']:>5}  {row['name']}{' (test)' if row['test'] else ''}  keys: {', '.join(row['keys'])}")
        if not rows:
            self.say("No services yet. Make one with `manage.py service create NAME`.")


def _order_of(service: Service) -> dict[str, Any]:
    return {"order_wait_seconds": service.order_wait_seconds, "order_then": str(service.order_then)}


def _expiry(given: str | None) -> datetime | None:
    try:
        return datetime.now(UTC) + duration(given) if given else None
    except ValueError as error:
        raise CommandError(f"--expires-in: {error}") from error
