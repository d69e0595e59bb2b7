"""Rendering a service's template: names in double braces, nothing else. Called by ``draft`` and the preview.

No template engine runs on a service's text: there are no tags, filters, calls or attributes, so nothing can be reached
and nothing can loop. In HTML every value is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deliveries.models import Service, Template

_NAME = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\s*\}\}")
_BRACES = re.compile(r"\{\{|\}\}|\{%|%\}")
OUTPUT_LIMIT = 500_000


class TemplateProblem(ValueError):
    """What is wrong with a template or its context, by field."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rendered:
    """A template filled in, and the version that was used."""

    subject: str
    text: str
    html: str
    version: int


def render(service: Service, name: str, channel: str, language: str, context: Mapping[str, Any]) -> Rendered:
    """The newest version of ``name`` for the channel, in the language or else without one. Raises ``TemplateProblem``."""
    versions = Template.objects.filter(service=service, name=name, channel=channel, language__in={language, ""})
    template = versions.order_by("-language", "-version").first()
    if template is None:
        raise TemplateProblem("template", f"this service has no template {name!r} for channel {channel!r}")
    missing = sorted(found for found in _all_names(template) if _look_up(context, found) is None)
    if missing:
        raise TemplateProblem("context", f"lacks {', '.join(missing)}, which template {name!r} uses")
    return Rendered(
        subject=" ".join(fill(template.subject, context).split()),
        text=fill(template.text, context),
        html=fill(template.html, context, escape=True),
        version=template.version,
    )


def _all_names(template: Template) -> set[str]:
    return names(template.subject) | names(template.text) | names(template.html)


def names(text: str) -> set[str]:
    """The variables that ``text`` uses."""
    return set(_NAME.findall(text))


def refuse_tags(field: str, text: str) -> None:
    """Raise ``TemplateProblem`` for anything in braces that is not a plain name."""
    if _BRACES.search(_NAME.sub("", text)):
        raise TemplateProblem(field, "may hold {{ name }} or {{ name.part }} only: no tags, filters or expressions")


def fill(text: str, context: Mapping[str, Any], *, escape: bool = False) -> str:
    """``text`` with its names replaced from ``context``; every name must be there."""

    size = len(text)

    def value(match: re.Match[str]) -> str:
        nonlocal size
        found = str(_look_up(context, match.group(1)))
        found = html.escape(found) if escape else found
        size += len(found)
        if size > OUTPUT_LIMIT:  # looked at while it grows: a long value used a thousand times is never built
            raise TemplateProblem("context", f"makes more than {OUTPUT_LIMIT:,} characters, which is the most")
        return found

    return _NAME.sub(value, text)


def _look_up(context: Any, name: str) -> str | int | float | None:
    for part in name.split("."):
        if not isinstance(context, Mapping):
            return None
        context = context.get(part)
    return context if isinstance(context, (str, int, float)) else None
