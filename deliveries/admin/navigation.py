"""The sidebar and the start page: where to go, the saved views with their numbers, and what is wrong now.

Named in the settings (UNFOLD); called by django-unfold on every page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

from chaski.vocabulary import Status
from deliveries.admin.finding import OVERDUE, Wanted, find
from deliveries.admin.message_list import there
from deliveries.admin.showing import lasting, plain
from deliveries.models import Account, Breaker, Heartbeat, Lineage, Pause

#: A saved view counts no further.
COUNTED = 99
_ALIVE = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class SavedView:
    """A list that operators look at every day: its filters, by the names of the list's parameters."""

    title: str
    icon: str
    state: str
    since: str
    window: timedelta | None

    @property
    def href(self) -> str:
        """The list with these filters."""
        return f"{_list('message')}?{urlencode({'status': self.state, 'since': self.since})}"


VIEWS = (
    SavedView("Failed in the last hour", "error", str(Status.FAILED), "1h", timedelta(hours=1)),
    SavedView("In doubt", "help", str(Status.IN_DOUBT), "all", None),
    SavedView("Stuck: due, not taken", "hourglass_disabled", OVERDUE, "all", None),
)


def _list(model: str) -> str:
    return reverse(f"admin:deliveries_{model}_changelist")


def stylesheet(request: HttpRequest) -> str:
    """Our own styles."""
    return static("deliveries/admin.css")


def favicon(request: HttpRequest) -> str:
    """The picture of the tab."""
    return static("deliveries/favicon.svg")


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups of the sidebar; what a person may not see is left out."""
    may = _may(request)
    views = [
        {
            "title": view.title,
            "icon": view.icon,
            "link": view.href,
            "permission": may("view_message"),
            "active": _shows(view),
        }
        for view in VIEWS
    ]
    every = {"title": "Messages", "icon": "mail", "link": _list("message"), "permission": may("view_message")}
    return [
        {
            "title": "Messages",
            "items": [{**every, "active": _no_view}, *views, _item("Batches", "batch", "stacks", may)],
        },
        {
            "title": "Control",
            "separator": True,
            "items": [
                _item("Pauses", "pause", "pause_circle", may),
                _item("Suppressions", "suppression", "block", may),
                _item("Processes", "heartbeat", "monitor_heart", may),
                _item("Breakers", "breakerevent", "electrical_services", may),
                _item("Receipts", "receipt", "receipt_long", may),
                _item("Replies", "reply", "reply", may),
                _item("Unmapped codes", "unmappedcode", "help_center", may),
                _item("Parked tasks", "parked", "garage", may),
                _item("Audit", "audit", "policy", may),
            ],
        },
        {
            "title": "Set-up",
            "separator": True,
            "items": [
                _item("Services", "service", "apps", may),
                _item("API keys", "apikey", "key", may),
                _item("Accounts", "account", "cell_tower", may),
                _item("Routes", "route", "alt_route", may),
                _item("Endpoints", "endpoint", "webhook", may),
                _item("Templates", "template", "description", may),
            ],
        },
        {
            "title": "People and tasks",
            "separator": True,
            "items": [
                _foreign("Users", "auth_user", "person", request, "auth.view_user"),
                _foreign("Groups", "auth_group", "group", request, "auth.view_group"),
                _foreign(
                    "Task results",
                    "django_celery_results_taskresult",
                    "task",
                    request,
                    "django_celery_results.view_taskresult",
                ),
            ],
        },
    ]


def _may(request: HttpRequest) -> Callable[[str], Callable[[HttpRequest], bool]]:
    return lambda codename: lambda _: request.user.has_perm(f"deliveries.{codename}")


def _item(title: str, model: str, icon: str, may: Callable[[str], Any]) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": _list(model), "permission": may(f"view_{model}")}


def _foreign(title: str, page: str, icon: str, request: HttpRequest, permission: str) -> dict[str, Any]:
    link = reverse(f"admin:{page}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": lambda _: request.user.has_perm(permission)}


def _shows(view: SavedView) -> Callable[[HttpRequest], bool]:
    return lambda request: request.path == _list("message") and request.GET.get("status") == view.state


def _no_view(request: HttpRequest) -> bool:
    states = {view.state for view in VIEWS}
    return request.path.startswith(_list("message")) and request.GET.get("status") not in states


@dataclass(frozen=True, slots=True)
class Line:
    """One line of "Now" on the start page."""

    words: str
    tone: str = "ok"
    href: str = ""


def start_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the start page shows, within what the person may see."""
    may_see = request.user.has_perm("deliveries.view_message")
    context["views"] = [_counted(view, request) for view in VIEWS] if may_see else []
    context["now"] = list(_now(request))
    return context


def _counted(view: SavedView, request: HttpRequest) -> dict[str, str]:
    wanted = Wanted(
        services=tuple(service.pk for service in there(request).services),
        channels=tuple({account.channel for account in there(request).accounts}),
        state=view.state,
        since=datetime.now(UTC) - view.window if view.window else None,
    )
    count = len(find(wanted, COUNTED + 1))
    return {"title": view.title, "href": view.href, "count": f"{COUNTED}+" if count > COUNTED else str(count)}


def _now(request: HttpRequest) -> Iterator[Line]:
    user = request.user
    if user.has_perm("deliveries.view_heartbeat"):
        yield from _processes()
    if user.has_perm("deliveries.view_pause"):
        for held in Lineage.objects.filter(held_at__isnull=False):
            words = (
                f"Nothing is sent: {plain(held.held_reason, 300)}. `manage.py arm` shows what would go, and lets it."
            )
            yield Line(words, "danger")
        for pause in Pause.objects.order_by("created_at")[:20]:
            words = f"Paused: {pause.get_scope_display()} {plain(pause.value, 64)} by {plain(pause.actor, 60)}"
            yield Line(words, "warning", _list("pause"))
    if user.has_perm("deliveries.view_account"):
        for account in Account.objects.filter(stopped_at__isnull=False).order_by("pk")[:20]:
            page = reverse("admin:deliveries_account_change", args=[account.pk])
            yield Line(f"Stopped: {account}: {plain(account.stopped_reason, 200)}", "danger", page)
        yield from _breakers()


def _breakers() -> Iterator[Line]:
    """Accounts whose provider is down."""
    now = datetime.now(UTC)
    open_ones = list(Breaker.objects.order_by("opened_at")[:20])
    names = {account.pk: str(account) for account in Account.objects.filter(pk__in=[each.pk for each in open_ones])}
    for each in open_ones:
        since = lasting(now - each.opened_at)
        words = f"Down for {since}: {names.get(each.pk, each.pk)}. Its messages wait; one is tried now and then."
        yield Line(words, "danger", _list("breakerevent"))


def _processes() -> Iterator[Line]:
    now = datetime.now(UTC)
    for kind in ("worker", "relay"):
        seen = [beat.seen_at for beat in Heartbeat.objects.filter(kind=kind).order_by("-seen_at")[:100]]
        alive = sum(at > now - _ALIVE for at in seen)
        if alive:
            yield Line(f"{alive} {kind}{'s' if alive > 1 else ''} running")
        else:
            last = f"; the last was seen {lasting(now - seen[0])} ago" if seen else "; none was ever seen"
            yield Line(f"No {kind} is running{last}", "danger", _list("heartbeat"))
