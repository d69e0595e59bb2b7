"""Services, their API keys, their callback endpoints and their templates. Secrets are shown once, when they are made."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib import messages as notices
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from channels.base import InvalidRecipient
from channels.media import MEDIA
from chaski.vocabulary import Status
from deliveries.admin.acting import Reason
from deliveries.admin.base import AdminBase, Checkboxes, ReadOnly, RowForm, Select, TextInput, actor, shown, timed
from deliveries.admin.showing import moment
from deliveries.callbacks import REPLY
from deliveries.intake.templates import TemplateProblem, refuse_tags
from deliveries.models import ApiKey, Endpoint, Service, Template
from deliveries.models.services import OrderThen
from deliveries.setting_up import CALLBACKS, add_key, put_template, revoke_key, set_endpoint


def shown_once(admin: AdminBase, request: HttpRequest, what: str, secret: str, back: str) -> TemplateResponse:
    """The one page that shows a secret. It is in no notice, cookie or session; the admin's pages are not to be cached."""
    context = admin.page_context(request, what, secret=secret, back=back)
    return TemplateResponse(request, "admin/chaski/secret.html", context)


class ServiceForm(RowForm):
    """A service and its rule for a blocked head."""

    order_then = forms.ChoiceField(label="and then", choices=OrderThen.choices, required=False, widget=Select)

    class Meta:
        model = Service
        fields = ("name", "test", "order_wait_seconds", "order_then")

    def clean_order_then(self) -> str:
        """The usual, where nothing is given."""
        return self.cleaned_data["order_then"] or OrderThen.SKIP


@admin.register(Service)
class ServiceAdmin(AdminBase):
    """Applications that send through Chaski. Never deleted: their messages name them."""

    form = ServiceForm
    list_display = ("name", "test", timed("created_at", "made"))
    ordering = ("name",)
    fields = ("name", "test", "order_wait_seconds", "order_then")
    change_form_outer_before_template = "admin/chaski/service_keys.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A service stays what it was made as: its keys say it too."""
        return ("test",) if obj else ()

    def get_urls(self) -> list[Any]:
        """A new key beside the form."""
        view = self.admin_site.admin_view(self.key_view)
        return [path("<int:pk>/key/", view, name="deliveries_service_key"), *super().get_urls()]

    def key_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """A further API key, as `manage.py service key` makes it."""
        refused = self.posted_to(request, "add_apikey")
        service = Service.objects.filter(pk=pk).first()
        back = reverse("admin:deliveries_service_change", args=[pk])
        if refused is not None or service is None:
            return refused or HttpResponseRedirect(back)
        key = add_key(service, actor=actor(request))
        return shown_once(self, request, f"A new API key for {service.name}", key, back)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    """The keys, without their secrets, which nobody has. Made on the page of their service, revoked here."""

    list_display = ("key_id", "service", timed("created_at", "made"), timed("last_used_at", "last used"), "standing")
    list_select_related = ("service",)
    ordering = ("-pk",)
    fields = (
        "key_id",
        "service",
        timed("created_at", "made"),
        timed("last_used_at", "last used"),
        timed("expires_at", "expires"),
        "standing",
    )
    readonly_fields = fields
    change_form_outer_before_template = "admin/chaski/key_revoke.html"

    @admin.display(description="state")
    def standing(self, key: ApiKey) -> str:
        """Whether it is taken."""
        return f"revoked at {moment(key.revoked_at)} UTC" if key.revoked_at else "active"

    def get_urls(self) -> list[Any]:
        """Revoke beside the page."""
        view = self.admin_site.admin_view(self.revoke_view)
        return [path("<int:pk>/revoke/", view, name="deliveries_apikey_revoke"), *super().get_urls()]

    def revoke_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """As `manage.py service revoke` does it."""
        refused = self.posted_to(request, "change_apikey")
        if refused is not None:
            return refused
        form, key = Reason(request.POST), ApiKey.objects.filter(pk=pk).first()
        if not form.is_valid() or key is None:
            notices.error(request, "Nothing was done: give a reason.")
        elif revoke_key(key.key_id, actor=actor(request), reason=form.cleaned_data["reason"]):
            notices.success(request, "Revoked; within two seconds no process takes it any more.")
        else:
            notices.error(request, "Nothing was done: it was revoked before.")
        return HttpResponseRedirect(reverse("admin:deliveries_apikey_change", args=[pk]))


class EndpointForm(RowForm):
    """Where to, and of which events."""

    url = forms.CharField(label="URL", max_length=2048, widget=TextInput)
    events = forms.MultipleChoiceField(
        choices=[(word, word) for word in (*map(str, Status), REPLY)],
        required=False,
        widget=Checkboxes,
        help_text="None chosen: all of them.",
    )

    class Meta:
        model = Endpoint
        fields = ("service", "url", "events", "active")

    def clean_url(self) -> str:
        """A URL that callbacks may reach."""
        try:
            return MEDIA["webhook"].normalise(self.cleaned_data["url"])
        except InvalidRecipient as error:
            raise ValidationError(f"It {error}.") from error

    def clean_service(self) -> Service:
        """A service whose account for callbacks is, or can be, a webhook's."""
        service: Service = self.cleaned_data["service"]
        if service.accounts.filter(name=CALLBACKS).exclude(channel="webhook").exists():
            raise ValidationError(f"It has an account {CALLBACKS!r} of another channel; rename that first.")
        return service


@admin.register(Endpoint)
class EndpointAdmin(AdminBase):
    """Where services are told their messages' events. The signing secret is shown once."""

    form = EndpointForm
    fields = ("service", "url", "events", "active")
    list_display = ("service", shown("url", "URL", 80), "active", timed("updated_at", "changed"))
    list_select_related = ("service",)
    change_form_outer_before_template = "admin/chaski/endpoint_secret.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: switch it off."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """An endpoint stays with its service."""
        return ("service",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: Any) -> None:
        """A new one gets its account and its secret, as `manage.py endpoint set` gives them."""
        if change:
            super().save_model(request, obj, form, change)
            return
        secret = set_endpoint(obj.service, obj.url, obj.events, actor=actor(request))
        Endpoint.objects.filter(service=obj.service).update(active=obj.active)
        obj.pk = Endpoint.objects.get(service=obj.service).pk
        request.chaski_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Endpoint, post_url_continue: Any = None) -> Any:
        """The page that shows the secret."""
        secret: str = request.chaski_secret  # type: ignore[attr-defined]
        return self._once(request, obj, secret)

    def _once(self, request: HttpRequest, obj: Endpoint, secret: str) -> TemplateResponse:
        back = reverse("admin:deliveries_endpoint_change", args=[obj.pk])
        return shown_once(self, request, f"The signing secret of {obj.service.name}'s callbacks", secret, back)

    def get_urls(self) -> list[Any]:
        """A new secret beside the form."""
        view = self.admin_site.admin_view(self.secret_view)
        return [path("<int:pk>/secret/", view, name="deliveries_endpoint_secret"), *super().get_urls()]

    def secret_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """A new signing secret; the one before it signs too, until another is made."""
        refused = self.posted_to(request, "change_endpoint")
        found = Endpoint.objects.select_related("service", "account").filter(pk=pk).first()
        if refused is not None or found is None:
            return refused or HttpResponseRedirect(reverse("admin:deliveries_endpoint_changelist"))
        base_url = found.account.options.get("base_url", "")
        secret = set_endpoint(found.service, found.url, found.events, base_url=base_url, actor=actor(request))
        return self._once(request, found, secret)


class TemplateForm(RowForm):
    """A new version of a text with variables."""

    channel = forms.ChoiceField(choices=[(channel, channel) for channel in MEDIA], widget=Select)

    class Meta:
        model = Template
        fields = ("service", "name", "channel", "language", "subject", "text", "html")

    def clean(self) -> dict[str, Any]:
        """Names in double braces and nothing else."""
        given = super().clean() or {}
        for part in ("subject", "text", "html"):
            try:
                refuse_tags(part, given.get(part, ""))
            except TemplateProblem as problem:
                self.add_error(problem.field, f"It {problem.reason}.")
        if not (given.get("text") or given.get("html")):
            self.add_error("text", "Give a text or HTML.")
        return given


@admin.register(Template)
class TemplateAdmin(AdminBase):
    """Versions are added and never changed: a message pins the one it was made from."""

    form = TemplateForm
    fields = ("service", "name", "channel", "language", "subject", "text", "html")
    list_display = ("name", "version", "service", "channel", "language", timed("created_at", "made"))
    list_select_related = ("service",)
    list_filter = ("channel", "service")
    ordering = ("service", "name", "channel", "language", "-version")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def audit(self, request: HttpRequest, obj: Any, verb: str, message: Any) -> None:
        """``put_template`` wrote it down."""

    def save_model(self, request: HttpRequest, obj: Template, form: Any, change: Any) -> None:
        """The next version, as `manage.py template put` makes it."""
        put_template(obj, actor=actor(request))
