"""`manage.py template put`: a new version of a text with variables."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from channels.media import MEDIA
from deliveries.intake.templates import TemplateProblem, names
from deliveries.management.command import Command as Base
from deliveries.management.command import actor, in_words, service_named
from deliveries.models import Template
from deliveries.setting_up import put_template


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

    def handle(self, *args: Any, **options: Any) -> None:
        parts = {part: options[part] for part in ("subject", "text", "html")}
        template = Template(
            service=service_named(options["service"]),
            name=options["name"],
            channel=options["channel"],
            language=options["language"],
            **parts,
        )
        try:
            put_template(template, actor=actor())
        except TemplateProblem as problem:
            raise CommandError(f"--{problem.field} {problem.reason}") from problem
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        variables = sorted(set().union(*(names(text) for text in parts.values())))
        if options["json"]:
            self.give({"name": template.name, "version": template.version, "variables": variables})
            return
        self.say(
            f"{template.name} is now version {template.version}; it uses {', '.join(variables) or 'no variables'}."
        )
