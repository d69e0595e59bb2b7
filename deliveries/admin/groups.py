"""The groups that people are put into: viewer, operator, security. Made after a migration where they are missing.

A group that exists is left as it is, so that what somebody takes away stays away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db.models.signals import post_migrate
from django.dispatch import receiver

_SEEN = "message batch receipt service account route endpoint template suppression pause heartbeat"
_VIEWER = {f"view_{name}" for name in _SEEN.split()} | {"view_taskresult"}
_OPERATOR = _VIEWER | {
    "act_on_message",
    "view_audit",
    "view_parked",
    *(f"{verb}_{name}" for verb in ("add", "delete") for name in ("suppression", "pause")),
    *(f"{verb}_route" for verb in ("add", "change", "delete")),
    "add_template",
}
_SECURITY = _VIEWER | {
    "view_audit",
    "view_message_body",
    "view_user",
    "view_group",
    *(f"{verb}_{name}" for verb in ("add", "change") for name in ("service", "account", "endpoint")),
    *(f"{verb}_apikey" for verb in ("view", "add", "change")),
}
#: Group -> the code names of its permissions.
GROUPS: dict[str, frozenset[str]] = {
    "viewer": frozenset(_VIEWER),
    "operator": frozenset(_OPERATOR),
    "security": frozenset(_SECURITY),
}
_APPS = ("deliveries", "django_celery_results", "auth")


@receiver(post_migrate)
def make_groups(sender: Any, using: str = "default", **_: Any) -> None:
    """After our own migrations: the groups that are missing."""
    if sender.label != "deliveries":
        return
    # Django makes permissions after a migration too, and which of the two comes first is not for us to rely on.
    create_permissions(sender, verbosity=0, using=using)
    for name, codenames in GROUPS.items():
        group, made = Group.objects.using(using).get_or_create(name=name)
        if made:
            group.permissions.set(_permissions(codenames, using))


def _permissions(codenames: Iterable[str], using: str) -> list[Permission]:
    known = Permission.objects.using(using).filter(content_type__app_label__in=_APPS)
    return list(known.filter(codename__in=codenames))
