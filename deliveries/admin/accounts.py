"""Accounts at providers, and the routes to them: set up, paused and resumed."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib import messages as notices
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from channels.registry import providers
from deliveries import acts
from deliveries.admin.account_form import PREFIX, form_for, is_there
from deliveries.admin.acting import Reason
from deliveries.admin.base import AdminBase, RowForm, actor, timed
from deliveries.admin.showing import moment, plain
from deliveries.models import Account, Pause, Route
from deliveries.models.control import PauseScope


@admin.register(Account)
class AccountAdmin(AdminBase):
    """Never deleted: messages of the past name it. Pause it, or let no route lead to it."""

    list_display = ("name", "channel", "provider", "service", "priority", "standing")
    list_select_related = ("service",)
    list_filter = ("channel", "provider")
    ordering = ("channel", "priority", "pk")
    readonly_fields = ("channel", "provider", "receipts_url", "standing", timed("updated_at", "changed"))
    change_form_outer_before_template = "admin/chaski/account_pause.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    @admin.display(description="state")
    def standing(self, account: Account) -> SafeString | str:
        """Whether it may send, and why not."""
        if account.stopped_at is None:
            return "in use"
        since, why = moment(account.stopped_at), plain(account.stopped_reason)
        return format_html('<span class="chaski-error">stopped at {} UTC: {}</span>', since, why)

    @admin.display(description="receipts come to")
    def receipts_url(self, account: Account) -> str:
        """What to enter at the provider."""
        cls = is_there(account.channel, account.provider)
        reports = cls is not None and (cls.receipts or cls.replies)
        return f"{settings.CHASKI_PUBLIC_URL}/receipts/{account.public_id}" if reports else "it reports nothing"

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """First which provider, as its options make the form."""
        if _asked(request) is not None:
            return super().add_view(request, form_url, extra_context)
        if not self.has_add_permission(request):
            raise PermissionDenied
        known = groupby(sorted(providers()), key=lambda pair: pair[0])
        choices = [(channel, [name for _, name in names]) for channel, names in known]
        context = self.page_context(request, "Add account: which provider?", choices=choices)
        return TemplateResponse(request, "admin/chaski/providers.html", context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: Any = None, **kwargs: Any) -> Any:
        """With the provider's own options."""
        pair = (obj.channel, obj.provider) if obj else _asked(request) or ("", "")
        return super().get_form(request, obj, change=change, **{**kwargs, "form": form_for(*pair)})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What every account has, then what this provider wants."""
        pair = (obj.channel, obj.provider) if obj else _asked(request) or ("", "")
        form = form_for(*pair)
        own = [name for name in form.base_fields if name.startswith(PREFIX)]
        shown = list(self.readonly_fields) if obj else []
        own = own if self.has_change_permission(request, obj) or obj is None else []
        return [
            (None, {"fields": [*shown, *form.Meta.fields]}),
            *([(f"{pair[1]} on {pair[0]}", {"fields": own})] if own else []),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The name and the owner stay: messages name the account by them."""
        return (*self.readonly_fields, "service", "name") if obj else self.readonly_fields

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Nothing from the address: it only says which provider."""
        return {}

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """The account, with whether it is paused."""
        account = super().get_object(request, object_id, from_field)
        if account is not None:
            account.paused = Pause.objects.filter(scope=PauseScope.ACCOUNT, value=str(account.pk)).exists()
        return account

    def get_urls(self) -> list[Any]:
        """Pause and resume beside the form."""
        hold = self.admin_site.admin_view(self.hold_view)
        return [path("<int:pk>/hold/", hold, name="deliveries_account_hold"), *super().get_urls()]

    def hold_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Pause or resume, as `manage.py pause --account` does."""
        refused = self.posted_to(request, "add_pause" if request.POST.get("act") == "pause" else "delete_pause")
        if refused is not None:
            return refused
        form = Reason(request.POST)
        if not form.is_valid():
            notices.error(request, "Nothing was done: give a reason.")
        elif request.POST.get("act") == "pause":
            acts.pause(PauseScope.ACCOUNT, str(pk), actor=actor(request), reason=form.cleaned_data["reason"])
            notices.success(request, "Paused: within two seconds nothing is claimed for it. Acceptance goes on.")
        else:
            acts.resume(PauseScope.ACCOUNT, str(pk), actor=actor(request), reason=form.cleaned_data["reason"])
            notices.success(request, "Resumed.")
        return HttpResponseRedirect(reverse("admin:deliveries_account_change", args=[pk]))


def _asked(request: HttpRequest) -> tuple[str, str] | None:
    """Channel and provider from ``?provider=sms:twilio``; None unless there is such a provider."""
    channel, _, provider = request.GET.get("provider", "").partition(":")
    return (channel, provider) if is_there(channel, provider) else None


class RouteForm(RowForm):
    """A route leads to an account of its channel that its service may use."""

    class Meta:
        model = Route
        fields = ("service", "account", "weight", "position")

    def clean(self) -> dict[str, Any]:
        """The account must be the service's own or shared; the channel is the account's."""
        given = super().clean() or {}
        service, account = given.get("service"), given.get("account")
        if service and account:
            if account.service_id not in (None, service.pk):
                raise ValidationError({"account": "It belongs to another service."})
            self.instance.channel = account.channel
        return given


@admin.register(Route)
class RouteAdmin(AdminBase):
    """Which accounts a service uses on a channel."""

    form = RouteForm
    list_display = ("id", "service", "channel", "account", "weight", "position")
    list_select_related = ("service", "account")
    list_filter = ("service",)
    ordering = ("service", "channel", "position")
