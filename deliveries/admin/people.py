"""Users and groups in the look of the other pages, with the same audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroups
from django.contrib.auth.admin import UserAdmin as DjangoUsers
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from deliveries.admin.base import AdminBase

if TYPE_CHECKING:
    Users = DjangoUsers[User]
else:
    Users = DjangoUsers

admin.site.unregister([User, Group])


@admin.register(User)
class UserAdmin(Users, AdminBase):
    """Who may enter."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroups, AdminBase):
    """Viewer, operator, security, and what else is made."""
