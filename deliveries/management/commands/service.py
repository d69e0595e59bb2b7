"""`manage.py service create|key|list`: applications that send through Chaski, and their keys."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import transaction

from deliveries.acts import audit
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, service_named
from deliveries.models import Service
from deliveries.setting_up import add_key, revoke_key


class Command(Base):
    help = "Create a service, give it a further API key, revoke a key, or list the services."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a service and print its API key, once")
        create.add_argument("name")
        create.add_argument("--test", action="store_true", help="its messages reach the sandbox, never a provider")
        key = verbs.add_parser("key", help="print a further API key, for rotation")
        key.add_argument("name")
        revoke = verbs.add_parser("revoke", help="revoke a key by its id (the part after ck_live_)")
        revoke.add_argument("key_id")
        listing = verbs.add_parser("list", help="the services and their keys")
        for verb in (create, key, listing):
            self.add_json(verb)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        getattr(self, f"_{verb}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        service = Service(name=options["name"], test=options["test"])
        try:
            service.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        with transaction.atomic():
            service.save()
            audit(actor(), "service_create", f"service:{service.pk}")
            key = add_key(service, actor=actor())
        self._show(service, key, options)

    def _key(self, options: dict[str, Any]) -> None:
        service = service_named(options["name"])
        self._show(service, add_key(service, actor=actor()), options)

    def _show(self, service: Service, key: str, options: dict[str, Any]) -> None:
        if options["json"]:
            self.give({"id": service.pk, "name": service.name, "api_key": key})
            return
        self.say(f"Service {service.name} has the id {service.pk}. Its API key is shown this once:")
        self.stdout.write(key)

    def _revoke(self, options: dict[str, Any]) -> None:
        if not revoke_key(options["key_id"], actor=actor()):
            raise CommandError(f"there is no active key {options['key_id']!r}; `service list` shows them")
        self.say("Revoked; within two seconds no process takes it any more.")

    def _list(self, options: dict[str, Any]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "id": service.pk,
                "name": service.name,
                "test": service.test,
                "keys": [key.key_id for key in service.api_keys.all() if key.revoked_at is None],
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
