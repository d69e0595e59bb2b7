"""Callers of the API, and a real web server on the test database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.db import connection

from deliveries.models import Account
from tests.api.calls import Api
from tests.api.server import Server, database_url
from tests.factories import Caller, make_account, make_caller


@pytest.fixture
def api(shop: Caller, account: Callable[..., Account]) -> Api:
    """The API for a service that can send SMS and e-mail."""
    account("sms", service=shop.service)
    account("email", name="post", service=shop.service)
    return Api(shop)


@pytest.fixture
def theirs(other: Caller, account: Callable[..., Account]) -> Api:
    """The API for another service."""
    account("sms", service=other.service)
    return Api(other)


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """gunicorn on the test database. Tests with it need ``transactional_db``."""
    log = Path(tmp_path_factory.mktemp("server")) / "web.log"
    with Server(database_url(str(connection.settings_dict["NAME"])), log) as running:
        yield running


@pytest.fixture
def sender(transactional_db: None) -> Caller:
    """A service that can send SMS, in rows that a real server sees."""
    caller = make_caller("at-once")
    make_account("sms", service=caller.service)
    return caller


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """Everything that is logged during a test, in the form in which it leaves the process."""
    text = StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter)
    root.addHandler(handler)
    yield text
    root.removeHandler(handler)
