"""A service with accounts, and its API, for the commands."""

from __future__ import annotations

import pytest

from tests.api.calls import Api
from tests.factories import Caller, make_account


@pytest.fixture
def api(shop: Caller) -> Api:
    make_account("sms", service=shop.service)
    make_account("email", name="post", service=shop.service)
    return Api(shop)
