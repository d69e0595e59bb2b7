"""What operators set: pauses and suppressions. Added and removed through ``deliveries.acts``, which audits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import CharField, OuterRef, Subquery
from django.db.models.functions import Cast
from django.http import HttpRequest

from channels.base import InvalidRecipient
from channels.media import MEDIA
from deliveries import acts
from deliveries.admin.base import AdminBase, KeysetAdmin, RowForm, Select, TextInput, actor, shown, timed
from deliveries.admin.finding import recipients
from deliveries.admin.showing import plain
from deliveries.models import Account, Batch, Pause, Service, Suppression
from deliveries.models.control import PauseScope


class SetByActs(AdminBase):
    """Rows that are added and taken away, never edited, by an act that writes its own audit."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: take it away and set another."""
        return False

    def audit(self, request: HttpRequest, obj: Any, verb: str, message: Any) -> None:
        """The act wrote it down."""


class PauseForm(RowForm):
    """What to hold, and why."""

    reason = forms.CharField(max_length=500, help_text="Kept in the audit.", widget=TextInput)

    class Meta:
        model = Pause
        fields = ("scope", "value")
        help_texts = {
            "value": "Empty for everything; else the channel's word, or the number (batch: the id) of the account or service."
        }

    def clean(self) -> dict[str, Any]:
        """The value must name something that there is."""
        given = super().clean() or {}
        problem = _problem(given.get("scope", ""), given.get("value", ""))
        if problem:
            raise ValidationError({"value": problem})
        return given


def _problem(scope: str, value: str) -> str:
    if scope == PauseScope.ALL:
        return "Leave it empty: everything is held." if value else ""
    if scope == PauseScope.CHANNEL:
        return "" if value in MEDIA else f"Is not a channel; one of {', '.join(MEDIA)}."
    if scope == PauseScope.BATCH:
        return "" if _is_uuid(value) and Batch.objects.filter(pk=value).exists() else "There is no batch with this id."
    model: type[Account | Service] = Account if scope == PauseScope.ACCOUNT else Service
    there = value.isascii() and value.isdigit() and len(value) < 19 and model.objects.filter(pk=int(value)).exists()
    return "" if there else f"There is no {scope} with this number."


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _name_of(model: type[Account | Service]) -> Subquery:
    """The name of the row that a pause holds by its number."""
    numbered = model.objects.annotate(number=Cast("pk", CharField())).filter(number=OuterRef("value"))
    return Subquery(numbered.values("name")[:1])


@admin.register(Pause)
class PauseAdmin(SetByActs):
    """The kill switch. Adding holds within two seconds, deleting lets go."""

    form = PauseForm
    readonly_fields = (timed("created_at", "since"),)
    fields = ("scope", "value", "reason")
    list_display = ("scope", "held", shown("actor", "by"), timed("created_at", "since"))
    ordering = ("-pk",)

    @admin.display(description="what")
    def held(self, pause: Pause) -> str:
        """What is held, with the name where the value is a number."""
        names = {"account": pause.account_name, "service": pause.service_name}  # type: ignore[attr-defined]
        name = names.get(pause.scope)
        return f"{name} ({pause.value})" if name else plain(pause.value) or "everything"

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the names of the accounts and services that are held."""
        return super().get_queryset(request).annotate(account_name=_name_of(Account), service_name=_name_of(Service))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """An existing pause has no reason of its own: the audit holds it."""
        return ("scope", "value", "actor", *self.readonly_fields) if obj else self.fields

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: Any) -> None:
        """Pause, as `manage.py pause` does."""
        acts.pause(PauseScope(obj.scope), obj.value, actor=actor(request), reason=form.cleaned_data["reason"])
        obj.pk = Pause.objects.get(scope=obj.scope, value=obj.value).pk

    def delete_model(self, request: HttpRequest, obj: Pause) -> None:
        """Resume, as `manage.py resume` does."""
        acts.resume(PauseScope(obj.scope), obj.value, actor=actor(request))


class SuppressionForm(RowForm):
    """Whom not to write to, and why."""

    channel = forms.ChoiceField(choices=[(channel, channel) for channel in MEDIA], widget=Select)
    recipient = forms.CharField(
        max_length=2048, help_text="As on a message: +56912345678, name@example.org.", widget=TextInput
    )

    class Meta:
        model = Suppression
        fields = ("channel", "recipient", "service", "reason")

    def clean(self) -> dict[str, Any]:
        """The recipient in its normalised form, as the check before every call compares it."""
        given = super().clean() or {}
        if "channel" in given and "recipient" in given:
            try:
                given["recipient"] = MEDIA[given["channel"]].normalise(given["recipient"])
            except InvalidRecipient as error:
                raise ValidationError({"recipient": f"It {error}."}) from error
        return given


@admin.register(Suppression)
class SuppressionAdmin(KeysetAdmin, SetByActs):
    """Recipients that are not written to. Adding and deleting are audited, without the recipient."""

    form = SuppressionForm
    readonly_fields = (timed("created_at", "since"),)
    fields = ("channel", "recipient", "service", "reason")
    list_display = (
        "id",
        shown("recipient", "recipient"),
        "channel",
        "whose",
        shown("reason", "why"),
        timed("created_at", "since"),
    )
    list_select_related = ("service",)
    search_fields = ("recipient",)
    search_help_text = "The exact recipient, in any spelling"

    @admin.display(description="service")
    def whose(self, suppression: Suppression) -> str:
        """For one service or for all."""
        return str(suppression.service or "all")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """By (channel, recipient), the order of the unique index."""
        term = search_term.strip().replace("\x00", "")
        if not term:
            return queryset, False
        return queryset.filter(channel__in=list(MEDIA), recipient__in=set(recipients(term))), False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """An existing one also says who set it and when."""
        return (*self.fields, "actor", *self.readonly_fields) if obj else self.fields

    def save_model(self, request: HttpRequest, obj: Suppression, form: Any, change: Any) -> None:
        """Suppress, as `manage.py suppress` does."""
        acts.suppress(obj.channel, obj.recipient, service_id=obj.service_id, actor=actor(request), reason=obj.reason)
        obj.pk = Suppression.objects.get(channel=obj.channel, recipient=obj.recipient, service=obj.service_id).pk

    def delete_model(self, request: HttpRequest, obj: Suppression) -> None:
        """Lift it, as `manage.py unsuppress` does."""
        acts.unsuppress(obj.channel, obj.recipient, service_id=obj.service_id, actor=actor(request))
