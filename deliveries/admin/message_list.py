"""The list of messages: search by exact text, filters on small sets, a window of time, bulk redeliver and cancel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from chaski.vocabulary import Status
from deliveries import reading
from deliveries.admin import showing
from deliveries.admin.base import KeysetChangeList
from deliveries.admin.finding import OVERDUE, Wanted, find
from deliveries.models import Account, Message, Service
from deliveries.trace import Trace

#: How far back the list looks. A search looks at everything unless a window is chosen.
WINDOWS = {
    "1h": ("in the last hour", timedelta(hours=1)),
    "24h": ("in the last 24 hours", timedelta(days=1)),
    "7d": ("in the last 7 days", timedelta(days=7)),
    "30d": ("in the last 30 days", timedelta(days=30)),
    "all": ("at any time", None),
}
DEFAULT_WINDOW = "7d"
#: What the list does not need of a message: what it says, and what its service keeps with it.
HEAVY = ("content", "options", "metadata", "tags")


class StateFilter(SimpleListFilter):
    """By status, or what is due and nobody takes."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Every status, and overdue."""
        return [*((str(status), showing.status(status)) for status in Status), (OVERDUE, "stuck: due, not taken")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The list does it."""
        return queryset


class ChannelFilter(SimpleListFilter):
    """By channel, of those that have an account."""

    title = "channel"
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The channels that messages can have."""
        return [(channel, channel) for channel in sorted({account.channel for account in there(request).accounts})]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The list does it."""
        return queryset


class ServiceFilter(SimpleListFilter):
    """By service."""

    title = "service"
    parameter_name = "service"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All of them, by name."""
        return [(str(service.pk), service.name) for service in there(request).services]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The list does it."""
        return queryset


class WindowFilter(SimpleListFilter):
    """By the time of acceptance, which the id carries."""

    title = "time"
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The windows."""
        return [(key, words) for key, (words, _) in WINDOWS.items()]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The windows alone; the one in force is marked, also when nobody chose it."""
        in_force = self.value() or ("all" if changelist.query else DEFAULT_WINDOW)
        for key, words in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: key})
            yield {"selected": key == in_force, "query_string": query, "display": words}

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The list does it."""
        return queryset


@dataclass(frozen=True, slots=True)
class There:
    """The services and accounts there are: small tables, read once per request."""

    services: tuple[Service, ...]
    accounts: tuple[Account, ...]


def there(request: HttpRequest) -> There:
    """What there is, read at the first question of a request."""
    found: There | None = getattr(request, "chaski_there", None)
    if found is None:
        accounts = Account.objects.only("id", "channel", "name").order_by("pk")
        found = There(tuple(Service.objects.order_by("name")), tuple(accounts))
        request.chaski_there = found  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """What a row of the list shows besides its message."""

    status: Status
    service: str
    account: str
    waits: str


class MessageChangeList(KeysetChangeList):
    """The list, by the walks of ``finding``: the filters only say what is wanted."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self.there = there(request)
        super().__init__(request, *args, **kwargs)

    def rows(self, limit: int) -> list[Message]:
        """One page of messages with what their rows show."""
        ids = find(self.wanted(), limit)
        messages = list(Message.objects.filter(pk__in=ids).defer(*HEAVY).order_by("-pk"))
        self._dress(messages)
        return messages

    def wanted(self) -> Wanted:
        """The search and the filters in one."""
        asked = {spec.parameter_name: spec.value() for spec in self.filter_specs}  # type: ignore[attr-defined]
        services = tuple(service.pk for service in self.there.services)
        channels = tuple({account.channel for account in self.there.accounts})
        text = self.query.strip().replace("\x00", "")
        window = asked.get("since") or ("all" if text else DEFAULT_WINDOW)
        self.window, length = WINDOWS.get(str(window), WINDOWS[DEFAULT_WINDOW])
        return Wanted(
            services=tuple(pk for pk in services if str(pk) == asked["service"]) if asked.get("service") else services,
            channels=(str(asked["channel"]),) if asked.get("channel") else channels,
            narrowed=bool(asked.get("service") or asked.get("channel")),
            text=text,
            state=str(asked.get("status") or ""),
            since=datetime.now(UTC) - length if length else None,
            after=self._after(),
        )

    def _after(self) -> UUID | None:
        try:
            return UUID(self.after) if self.after else None
        except ValueError as error:
            raise IncorrectLookupParameters from error

    def _dress(self, messages: list[Message]) -> None:
        pending = reading.pending_of(messages)
        now, pauses = reading.now_and_pauses()
        services = {service.pk: service.name for service in self.there.services}
        accounts = {account.pk: account.name for account in self.there.accounts}
        for message in messages:
            waiting = pending.get(message.pk)
            found = Trace(
                message,
                reading.effective_status(message, waiting),
                reading.waiting(waiting, pauses, now),
                entries=[],
            )
            message.shown = Shown(  # type: ignore[attr-defined]
                status=found.status,
                service=services.get(message.service_id, ""),
                account=accounts.get(message.account_id, ""),
                waits=found.waits,
            )


def badge(status: Status) -> SafeString:
    """A status as a coloured word."""
    return format_html('<span class="chaski-badge chaski-{}">{}</span>', showing.TONES[status], showing.status(status))


def why(message: Message) -> str:
    """The last column: the error that stands, or what the message waits for."""
    if message.error_class:
        code = f" ({showing.plain(message.error_code, 24)})" if message.error_code else ""
        return f"{showing.error(message.error_class)}{code}"
    waits: str = message.shown.waits  # type: ignore[attr-defined]
    return waits
