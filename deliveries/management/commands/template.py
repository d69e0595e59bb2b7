"""`manage.py template put`: a new version of a text with variables."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import Max

from channels.media import MEDIA
from deliveries.acts import audit
from deliveries.intake.templates import TemplateProblem, names, refuse_tags
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, service_named
from deliveries.models import Service, Template


class Command(Base):
    help = "Store a new version of a template. Variables are written {{ name }} or {{ name.part }}."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        put = verbs.add_parser("put", help="store a new version; earlier ones stay as they are")
        put.add_argument("service")
        put.add_argument("name")
        put.add_argument("channel", choices=list(MEDIA))
        put.add_argument("--language", default="")
        put.add_argument("--subject", default="")
        put.add_argument("--text", default="")
        put.add_argument("--html", default="")
        self.add_json(put)

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        # The lock makes two puts at once two versions.
        service = Service.objects.select_for_update().get(pk=service_named(options["service"]).pk)
        parts = {part: options[part] for part in ("subject", "text", "html")}
        if not (parts["text"] or parts["html"]):
            raise CommandError("give --text or --html")
        try:
            for part, text in parts.items():
                refuse_tags(part, text)
        except TemplateProblem as problem:
            raise CommandError(f"--{problem.field} {problem.reason}") from problem
        same = Template.objects.filter(
            service=service, name=options["name"], channel=options["channel"], language=options["language"]
        )
        template = Template.objects.create(
            service=service,
            name=options["name"],
            channel=options["channel"],
            language=options["language"],
            version=(same.aggregate(top=Max("version"))["top"] or 0) + 1,
            **parts,
        )
        audit(actor(), "template_put", f"template:{template.pk}")
        variables = sorted(set().union(*(names(text) for text in parts.values())))
        if options["json"]:
            self.give({"name": template.name, "version": template.version, "variables": variables})
            return
        self.say(
            f"{template.name} is now version {template.version}; it uses {', '.join(variables) or 'no variables'}."
        )
