"""For the tests of services that send: the fixture `chaski_outbox`, in place of a running service.

    def test_the_customer_is_told(chaski_outbox):
        ship(order)
        assert [message.to for message in chaski_outbox] == ["+56912345678"]

Loaded by pytest as a plugin of the installed distribution; nothing else imports it. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import pytest

from chaski import configuration
from chaski.client import Client
from chaski.outbox import Outbox
from chaski.wire import Answer, Request

__all__ = ["Outbox", "chaski_outbox"]


@pytest.fixture
def chaski_outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """A list of every message that was sent, through `chaski.send` or any `Client`, even one made before the
    test.

    Nothing goes over the network and neither URL nor key need be set. See ``Outbox`` for what else it does.
    """
    outbox = Outbox()

    def exchange(_client: Client, request: Request, deadline: float) -> Answer:
        return outbox.answer(request)

    def connection(url: str | None, api_key: str | None) -> tuple[str, str]:
        return url or "http://outbox.invalid", api_key or "ck_test_outbox"

    monkeypatch.setattr(Client, "_exchange", exchange)
    monkeypatch.setattr(configuration, "connection", connection)
    return outbox
