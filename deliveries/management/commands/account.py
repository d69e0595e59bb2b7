"""`manage.py account create|test|list`: credentials at providers."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from channels.base import InvalidOption
from channels.registry import UnknownProvider, provider_class
from deliveries import intake
from deliveries.management.command import Command as Base
from deliveries.management.command import account_named, actor, in_words, leave, pairs, service_named
from deliveries.models import Account, Message, Service
from deliveries.models.accounts import InDoubtPolicy
from deliveries.models.messages import Origin
from deliveries.setting_up import NameTaken, create_account
from deliveries.trace import trace


class Command(Base):
    help = "Create an account at a provider, try one, or list them."
    examples = {
        "create": {
            "id": 1,
            "name": "main",
            "channel": "sms",
            "provider": "twilio",
            "receipts_url": "https://chaski.example.com/receipts/01234567-89ab-4def-8123-456789abcdef",
        },
        "test": {"id": "01980000-0000-7000-8000-000000000000", "status": "sent"},
        "list": [{"id": 1, "name": "main", "channel": "sms", "provider": "twilio", "service": "shop", "stopped": None}],
    }

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make an account")
        create.add_argument("channel", metavar="CHANNEL", help="what it carries, such as sms")
        create.add_argument("provider", metavar="PROVIDER", help="who carries it, such as twilio")
        create.add_argument("name", metavar="NAME", help="letters, digits, hyphens and underscores")
        create.add_argument("--service", help="the owner; without it the account is shared by all services")
        create.add_argument("--option", action="append", metavar="k=v", help="a setting of the provider; repeatable")
        create.add_argument("--secret", action="append", metavar="k=v", help="a credential, kept encrypted; repeatable")
        create.add_argument("--priority", type=int, default=0, help="the lowest is used first")
        create.add_argument(
            "--in-doubt",
            choices=InDoubtPolicy.values,
            default=str(InDoubtPolicy.RETRY),
            help="what happens to a message whose answer never came",
        )
        test = verbs.add_parser("test", help="send one message and show every step")
        test.add_argument("name", metavar="NAME", help="the account")
        test.add_argument("to", metavar="TO", help="the recipient, in any form that the channel takes")
        test.add_argument("--service", help="whose account it is; for a shared one, in whose name to send")
        test.add_argument("--text", default="This is a test message from Chaski.", help="what to say")
        test.add_argument("--wait", type=float, default=30.0, metavar="SECONDS", help="how long to watch it")
        listing = verbs.add_parser("list", help="the accounts")
        for verb in (create, test, listing):
            self.add_json(verb)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        getattr(self, f"_{verb}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        account = Account(
            service=service_named(options["service"]) if options["service"] else None,
            channel=options["channel"],
            provider=options["provider"],
            name=options["name"],
            priority=options["priority"],
            in_doubt_policy=options["in_doubt"],
        )
        try:
            create_account(account, {**pairs(options["option"]), **pairs(options["secret"])}, actor=actor())
        except (UnknownProvider, NameTaken) as error:
            raise CommandError(str(error)) from error
        except InvalidOption as error:
            raise CommandError(
                f"{error}. Options are given as --option name=value, secrets as --secret name=value"
            ) from error
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        cls = provider_class(account.channel, account.provider)
        self._created(account, receipts=cls.receipts or cls.replies, as_json=options["json"])

    def _created(self, account: Account, *, receipts: bool, as_json: bool) -> None:
        url = f"{settings.CHASKI_PUBLIC_URL}/receipts/{account.public_id}" if receipts else None
        if as_json:
            self.give(
                {
                    "id": account.pk,
                    "name": account.name,
                    "channel": account.channel,
                    "provider": account.provider,
                    "receipts_url": url,
                }
            )
            return
        self.say(f"Account {account.name} has the id {account.pk}." + (f" Receipts come to {url}" if url else ""))

    def _test(self, options: dict[str, Any]) -> None:
        service = service_named(options["service"]) if options["service"] else None
        account = account_named(options["name"], service)
        sender = account.service or service or Service.objects.order_by("pk").first()
        if sender is None:
            raise CommandError("there is no service yet; make one with `manage.py service create NAME`")
        message = {"channel": account.channel, "to": options["to"], "text": options["text"]}
        if account.channel == "email":
            message["subject"] = "Test message"
        try:
            checked = intake.draft(sender, message, account_id=account.pk)
        except intake.InvalidMessage as error:
            raise CommandError(str(error)) from error
        accepted = intake.accept([checked], origin=Origin.TEST)[0]
        self._follow(accepted.id, options)

    def _follow(self, message_id: Any, options: dict[str, Any]) -> None:
        until, told = time.monotonic() + options["wait"], 0
        while True:
            now = trace(Message.objects.get(pk=message_id))
            for entry in now.entries[told:]:
                self.say(f"{entry.at:%H:%M:%S.%f}  {entry.words}")
            told = max(told, len(now.entries))
            done = now.message.status not in ("queued", "sending")
            if done or time.monotonic() > until:
                break
            time.sleep(0.2)
        if options["json"]:
            self.give({"id": message_id, "status": str(now.status)})
        if not done:
            self.say(
                f"After {options['wait']:g} s it still {now.waits or 'is under way'}. Do the workers run? Try doctor."
            )
        leave(0 if now.message.status in ("sent", "delivered", "read") else 1)

    def _list(self, options: dict[str, Any]) -> None:
        rows = [
            {
                "id": account.pk,
                "name": account.name,
                "channel": account.channel,
                "provider": account.provider,
                "service": account.service.name if account.service else None,
                "stopped": account.stopped_reason or None,
            }
            for account in Account.objects.select_related("service").order_by("channel", "priority", "pk")
        ]
        if options["json"]:
            self.give(rows)
            return
        for row in rows:
            stopped = f"  STOPPED: {row['stopped']}" if row["stopped"] else ""
            whose = row["service"] or "shared"
            self.say(f"{row['id']:>5}  {row['channel']:<9} {row['provider']:<10} {row['name']} ({whose}){stopped}")
        if not rows:
            self.say("No accounts yet. Make one with `manage.py account create CHANNEL PROVIDER NAME`.")
