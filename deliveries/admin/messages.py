"""Messages in the admin: found, read and acted on; never added, edited or deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib import messages as notices
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString

from deliveries.acts import audit
from deliveries.admin import message_page as page
from deliveries.admin.acting import Reason, act_on_one, action
from deliveries.admin.base import KeysetAdmin, ReadOnly, actor
from deliveries.admin.callbacks_told import told
from deliveries.admin.message_list import (
    ChannelFilter,
    MessageChangeList,
    ServiceFilter,
    StateFilter,
    WindowFilter,
    badge,
    why,
)
from deliveries.admin.showing import moment, plain
from deliveries.admin.verdict import reason_of, verdict
from deliveries.models import Account, Message, Service
from deliveries.trace import trace


@admin.register(Message)
class MessageAdmin(KeysetAdmin, ReadOnly):
    """The list is in ``message_list``, the page in ``message_page``, the acts in ``acting``."""

    list_display = ("accepted", "state", "recipient_shown", "channel", "service_name", "tries", "now", "named")
    list_filter = (StateFilter, ChannelFilter, ServiceFilter, WindowFilter)
    search_fields = ("id",)
    search_help_text = "Phone, e-mail, id, reference, key, provider's id"
    actions: Any = [action("redeliver", "Redeliver the selected"), action("cancel", "Cancel the selected")]
    list_before_template = "admin/chaski/searching.html"

    def has_act_permission(self, request: HttpRequest) -> bool:
        """May this person redeliver, cancel and resolve?"""
        return request.user.has_perm("deliveries.act_on_message")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list by the walks of ``finding``."""
        return MessageChangeList

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """The list searches by itself; nothing else may search here."""
        return queryset, False

    @admin.display(description="accepted (UTC)")
    def accepted(self, message: Message) -> str:
        """When it was accepted; leads to its page."""
        return moment(message.created_at)

    @admin.display(description="status")
    def state(self, message: Message) -> SafeString:
        """The status as people see it."""
        return badge(message.shown.status)  # type: ignore[attr-defined]

    @admin.display(description="to")
    def recipient_shown(self, message: Message) -> str:
        """The recipient, normalised."""
        return plain(message.recipient, 40)

    @admin.display(description="service")
    def service_name(self, message: Message) -> str:
        """Whose message it is."""
        return str(message.shown.service)  # type: ignore[attr-defined]

    @admin.display(description="attempts")
    def tries(self, message: Message) -> int:
        """How many attempts were closed."""
        return message.attempt_count

    @admin.display(description="why")
    def now(self, message: Message) -> str:
        """The error that stands, or what it waits for."""
        return why(message)

    @admin.display(description="reference")
    def named(self, message: Message) -> str:
        """The service's own name for it."""
        return plain(message.reference, 30)

    def get_urls(self) -> list[Any]:
        """The acts and the body beside the page."""
        view = self.admin_site.admin_view
        return [
            path("<uuid:pk>/act/", view(self.act_view), name="deliveries_message_act"),
            path("<uuid:pk>/body/", view(self.body_view), name="deliveries_message_body"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of one message."""
        message = self.get_object(request, unquote(object_id))
        if message is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        if not self.has_view_permission(request, message):
            raise PermissionDenied
        return TemplateResponse(request, "admin/chaski/message.html", self._page(request, message))

    def _page(self, request: HttpRequest, message: Message) -> dict[str, Any]:
        found = trace(message)
        service = Service.objects.filter(pk=message.service_id).first()
        account = Account.objects.filter(pk=message.account_id).first()
        callbacks = told(message)
        return self.page_context(
            request,
            str(message.pk),
            message=message,
            original=message,
            state=badge(found.status),
            verdict=verdict(found, datetime.now(UTC)),
            waits=found.waits,
            last_error=reason_of(message),  # the theme's notices have a variable `error` of their own
            facts=list(page.facts(message, service, account)),
            steps=page.steps(found),
            callbacks=page.callbacks(callbacks),
            untold=callbacks.waiting,
            neighbours=page.neighbours(message),
            acts=page.possible(found.status) if self.has_act_permission(request) else [],
            may_read_body=request.user.has_perm("deliveries.view_message_body"),
        )

    def act_view(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """Do one act, then show the page again with what became of it."""
        refused = self.posted_to(request, "act_on_message")
        if refused is not None:
            return refused
        back = HttpResponseRedirect(reverse("admin:deliveries_message_change", args=[pk]))
        message = Message.objects.filter(pk=pk).first()
        if message is not None:
            act_on_one(request, message)
        return back

    def body_view(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """What the message says, to those who may read it and say why. Every view is in the audit."""
        refused = self.posted_to(request, "view_message_body")
        form, message = Reason(request.POST), Message.objects.filter(pk=pk).first()
        if refused is not None:
            return refused
        if message is None or not form.is_valid():
            notices.error(request, "Nothing was shown: say why you need to read it. The reason is kept in the audit.")
            return HttpResponseRedirect(reverse("admin:deliveries_message_change", args=[pk]))
        with transaction.atomic():
            audit(actor(request), "view_body", str(message.pk), form.cleaned_data["reason"])
        written = partial(json.dumps, indent=2, ensure_ascii=False, sort_keys=True)
        said = page.body(message)
        kept = {name: plain(written(said[name])) for name in ("options", "metadata") if said[name]}
        context = self.page_context(
            request, f"What {message.pk} says", message=message, original=message, said=said, kept=kept
        )
        return TemplateResponse(request, "admin/chaski/body.html", context)
