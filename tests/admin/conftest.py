"""Fixtures of the admin's tests: people in each group with their browser-like client."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from deliveries.models import Account, Service
from tests.factories import Caller

Enter = Callable[..., Client]


@pytest.fixture
def enter(db: None) -> Enter:
    """Logs somebody in who is in the groups named: ``enter("operator")``."""

    def log_in(*groups: str, name: str = "") -> Client:
        user = User.objects.create_user(name or "-".join(groups) or "nobody", is_staff=True)
        user.groups.set(Group.objects.filter(name__in=groups))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def boss(db: None) -> Client:
    """A superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def service(shop: Caller, account: Callable[..., Account]) -> Service:
    """A service with a way to send SMS and e-mail."""
    account("sms", "sandbox", "texts")
    account("email", "sandbox", "mails")
    return shop.service
