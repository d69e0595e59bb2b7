"""The query string of a list as filters. Called by the list of messages; reports use its times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter

from channels.base import InvalidRecipient
from channels.media import MEDIA
from chaski.vocabulary import Status
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.fields import KEY_LIMIT, moment, text_of
from deliveries.models import Service
from deliveries.reading import Filters

DEFAULT_WINDOW = timedelta(days=7)
_TIME_HELP = "An ISO 8601 time with its zone. A message counts by the time in its id."
FILTERS = {
    "status": "One or more of the statuses, with commas.",
    "channel": "One or more channels, with commas.",
    "to": "The recipient in any form that its channel takes.",
    "reference": "The reference that the service gave.",
    "tag": "One of the tags; only together with to, reference or batch.",
    "batch": "The id of a batch.",
    "created_after": f"{_TIME_HELP} Seven days ago if left out.",
    "created_before": _TIME_HELP,
    "cursor": "`next` of the page before.",
    "limit": f"1 to {limits().page_rows} messages; 50 if left out.",
}
PARAMETERS = [OpenApiParameter(name, str, description=text) for name, text in FILTERS.items()]


def filters_of(service: Service, query: Mapping[str, str]) -> Filters:
    """The query string as filters. Raises ``Problem`` naming the parameter."""
    refuse_unknown(query, tuple(FILTERS))
    created_after = time_of(query, "created_after") or datetime.now(UTC) - DEFAULT_WINDOW
    created_before = time_of(query, "created_before")
    return Filters(
        service_id=service.pk,
        statuses=tuple(Status(word) for word in _words(query, "status", [str(status) for status in Status])),
        channels=tuple(_words(query, "channel", list(MEDIA))),
        recipient=_recipient(_words(query, "channel", list(MEDIA)), _text(query, "to", 2048)),
        reference=_text(query, "reference", KEY_LIMIT),
        tag=_text(query, "tag", 64),
        batch_id=_uuid(query, "batch"),
        since=floor(created_after),
        until=floor(created_before) if created_before else None,
        after=_uuid(query, "cursor"),
        limit=_limit(query),
    )


def refuse_unknown(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Raise ``Problem`` for a parameter that would otherwise be silently without effect."""
    unknown = sorted(set(query) - set(known))
    if unknown:
        raise Problem(
            422,
            "unknown_filter",
            f"There is no parameter {', '.join(unknown)[:100]} here; there are {', '.join(known)}.",
            {name[:64]: ["is not a parameter of this call"] for name in unknown[:10]},
        )


def time_of(query: Mapping[str, str], name: str) -> datetime | None:
    """The time in a parameter, aware UTC; None where it is not given. Raises ``Problem``."""
    try:
        return moment(query[name]) if query.get(name) else None
    except ValueError as error:
        raise invalid(name, str(error)) from error


def floor(at: datetime) -> UUID:
    """The smallest UUIDv7 of a moment."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def invalid(name: str, reason: str) -> Problem:
    """A parameter that cannot be understood."""
    return Problem(422, "invalid_filter", f"{name} {reason}.", {name: [reason]})


def _words(query: Mapping[str, str], name: str, known: list[str]) -> list[str]:
    words = [word for word in query.get(name, "").split(",") if word]
    if any(word not in known for word in words):
        raise invalid(name, f"takes {', '.join(known)}")
    return words


def _text(query: Mapping[str, str], name: str, limit: int) -> str:
    try:
        return text_of(limit, lines=False)(query.get(name, ""))
    except ValueError as error:
        raise invalid(name, str(error)) from error


def _recipient(channels: list[str], to: str) -> str:
    """``to`` as it is kept. Without a channel its form tells whether it is a phone number or an address."""
    for medium in [MEDIA[channel] for channel in channels] or [MEDIA["sms"], MEDIA["email"]]:
        try:
            return medium.normalise(to)
        except InvalidRecipient:
            continue
    return to.strip()


def _uuid(query: Mapping[str, str], name: str) -> UUID | None:
    try:
        return UUID(query[name]) if query.get(name) else None
    except ValueError as error:
        raise invalid(name, "is not a UUID") from error


def _limit(query: Mapping[str, str]) -> int:
    given, most = query.get("limit", "50"), limits().page_rows
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and 1 <= int(given) <= most):
        raise invalid("limit", f"takes 1 to {most}")
    return int(given)
