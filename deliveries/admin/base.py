"""What all admin pages share: the one base class on django-unfold, keyset lists, and the audit of every change.

Every other module of this package builds on it. With another theme only the import at the top changes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.admin import ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed

from deliveries.acts import audit
from deliveries.admin.showing import moment, plain

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.contrib.admin.views.main import ChangeList
    from django.forms import CheckboxSelectMultiple as Checkboxes
    from django.forms import PasswordInput as Password
    from django.forms import Select, TextInput

    Base = ModelAdmin[Any]
    RowForm = ModelForm[Any]
else:
    from unfold.admin import ModelAdmin as Base
    from unfold.views import ChangeList
    from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget as Checkboxes
    from unfold.widgets import UnfoldAdminPasswordWidget as Password
    from unfold.widgets import UnfoldAdminSelectWidget as Select
    from unfold.widgets import UnfoldAdminTextInputWidget as TextInput

    RowForm = ModelForm

__all__ = [
    "AFTER",
    "AdminBase",
    "Checkboxes",
    "KeysetAdmin",
    "KeysetChangeList",
    "Password",
    "ReadOnly",
    "RowForm",
    "Select",
    "TextInput",
    "actor",
    "shown",
    "timed",
]

#: The id below which the page of a keyset list begins.
AFTER = "after"


def actor(request: HttpRequest) -> str:
    """Who asks, as the audit and the events write it."""
    return f"admin:{request.user.get_username()}"


class AdminBase(Base):
    """The base of every admin page: no counts, no bulk delete, and an audit entry for whatever is saved."""

    actions: Any = None
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    list_filter_sheet = False
    list_fullwidth = True

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Django's own log, and ours."""
        self.audit(request, obj, "create", message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Django's own log, and ours."""
        self.audit(request, obj, "change", message)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Django's own log, and ours."""
        for obj in queryset:
            self.audit(request, obj, "delete", [])
        return super().log_deletions(request, queryset)

    def audit(self, request: HttpRequest, obj: Model, verb: str, message: Any) -> None:
        """Write down who did ``verb`` to ``obj``: the names of the fields, never their values."""
        fields = [name for entry in _entries(message) for name in entry.get("changed", {}).get("fields", [])]
        kind = str(obj._meta.model_name)
        audit(actor(request), f"{kind}_{verb}", f"{kind}:{obj.pk}", detail={"fields": fields} if fields else {})

    def posted_to(self, request: HttpRequest, permission: str) -> HttpResponse | None:
        """Refuse what is no POST (405) or comes from somebody without ``deliveries.<permission>`` (403)."""
        if not request.user.has_perm(f"deliveries.{permission}"):
            raise PermissionDenied
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])

    def page_context(self, request: HttpRequest, title: str, **context: Any) -> dict[str, Any]:
        """What a page of our own needs from the site and the model."""
        return {**self.admin_site.each_context(request), "opts": self.opts, "title": title, **context}


def _entries(message: Any) -> list[dict[str, Any]]:
    found = json.loads(message) if isinstance(message, str) and message.startswith("[") else message
    return found if isinstance(found, list) else []


class ReadOnly(AdminBase):
    """Rows that people look at and nobody edits here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, slots=True)
class KeysetPages:
    """The links below a keyset list, in the place of Django's paginator. An empty query string is no link."""

    newest: str
    older: str
    shown: int
    template_name: str = "admin/chaski/keyset.html"


class KeysetChangeList(ChangeList):
    """A list by descending id: a page begins below the last id of the one before, and nothing is ever counted."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        query = request.GET.copy()
        self.after = str(query.pop(AFTER, [""])[-1])
        request.GET = query  # type: ignore[assignment]  # links and hidden fields must not carry the old page
        super().__init__(request, *args, **kwargs)

    def get_ordering(self, request: HttpRequest, queryset: Any) -> Any:
        """The newest first, whatever is asked."""
        return ["-pk"]

    def get_ordering_field_columns(self) -> dict[int, str]:  # type: ignore[override]
        """No column is sorted."""
        return {}

    def get_results(self, request: HttpRequest) -> None:
        """One page, and whether there is an older one: the row that would be its first tells."""
        rows = self.rows(self.list_per_page + 1)
        self.result_list = rows[: self.list_per_page]
        older = self.get_query_string({AFTER: rows[self.list_per_page - 1].pk}) if rows[self.list_per_page :] else ""
        newest = self.get_query_string() if self.after else ""
        self.paginator = KeysetPages(newest, older, len(self.result_list))
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(self.result_list)

    def rows(self, limit: int) -> list[Any]:
        """The first ``limit`` rows of this page."""
        queryset = self.queryset
        if self.after:
            try:
                queryset = queryset.filter(pk__lt=self.after)
            except (ValueError, ValidationError) as error:
                raise IncorrectLookupParameters from error
        return list(queryset[:limit])


class KeysetAdmin(AdminBase):
    """A table that grows with the messages."""

    sortable_by = ()
    list_max_show_all = 0

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list by keyset."""
        return KeysetChangeList


def shown(field: str, label: str, limit: int = 60) -> Any:
    """A list column or read-only field with the text of ``field``, made safe to read and cut to ``limit``."""

    def column(obj: Model) -> str:
        return plain(getattr(obj, field) or "", limit)

    column.short_description = label  # type: ignore[attr-defined]
    column.__name__ = f"shown_{field}"
    return column


def timed(field: str, label: str) -> Any:
    """A list column or read-only field with the time of ``field`` in UTC, written as everywhere."""

    def column(obj: Model) -> str:
        return moment(getattr(obj, field))

    column.short_description = f"{label} (UTC)"  # type: ignore[attr-defined]
    column.admin_order_field = field  # type: ignore[attr-defined]
    column.__name__ = f"timed_{field}"
    return column
