"""Fixtures that tests of several packages share: a service with its key, accounts, and a caller of the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import config.celery  # noqa: F401 - our Celery application is the current one, as in every process
from deliveries.models import Account
from tests.factories import Caller, make_account, make_caller


@pytest.fixture
def shop(db: None) -> Caller:
    """The service of most tests."""
    return make_caller("shop")


@pytest.fixture
def other(db: None) -> Caller:
    """Another service, which must see nothing of the first."""
    return make_caller("other")


@pytest.fixture
def account(db: None) -> Callable[..., Account]:
    """Makes accounts: ``account("sms", "sandbox", "main")``."""
    return make_account
