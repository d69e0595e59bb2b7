"""`manage.py template put`: a new version of a text with variables."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
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
    examples = {"put": {"name": "welcome", "version": 2, "variables": ["name"]}}

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        put = verbs.add_parser("put", help="store a new version; earlier ones stay as they are")
        put.add_argument("service", metavar="SERVICE", help="whose template")
        put.add_argument("name", metavar="NAME", help="letters, digits, hyphens and underscores")
        put.add_argument("channel", choices=list(MEDIA), metavar="CHANNEL", help="for which channel")
        put.add_argument("--language", default="", help="for messages in this language; for all others if left out")
        put.add_argument("--subject", default="", help="the subject")
        put.add_argument("--text", default="", help="the plain text")
        put.add_argument("--html", default="", help="the HTML, in which every value is escaped")
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
        template = Template(
            service=service,
            name=options["name"],
            channel=options["channel"],
            language=options["language"],
            version=(same.aggregate(top=Max("version"))["top"] or 0) + 1,
            **parts,
        )
        try:
            template.full_clean()
        except ValidationError as error:
            said = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
            raise CommandError(said) from error
        template.save()
        audit(actor(), "template_put", f"template:{template.pk}")
        variables = sorted(set().union(*(names(text) for text in parts.values())))
        if options["json"]:
            self.give({"name": template.name, "version": template.version, "variables": variables})
            return
        self.say(
            f"{template.name} is now version {template.version}; it uses {', '.join(variables) or 'no variables'}."
        )
