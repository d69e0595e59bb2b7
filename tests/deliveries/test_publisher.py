"""Whoever rings has other work to do: a broker that is away, or does not answer, costs a moment and no more."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from chaski.vocabulary import Lane
from config.celery import app
from config.ports import any_free
from deliveries.doorbell import BROKER_ERRORS, Bell, Publisher, ring_bare

#: The clients' own retries take six seconds and more.
SECONDS = 3.0


@contextmanager
def refusing() -> Iterator[int]:
    yield any_free()


@contextmanager
def silent() -> Iterator[int]:
    """The kernel takes connections, and nobody ever reads from them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("broker", [refusing, silent])
def test_a_broker_that_is_away_is_given_up_soon(
    broker: Callable[[], AbstractContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker() as port:
        monkeypatch.setattr(app.conf, "broker_write_url", f"redis://127.0.0.1:{port}/0")
        bell, publisher = Bell("sms", Lane.NORMAL), Publisher()
        for act in (lambda: publisher.publish(bell), lambda: ring_bare(publisher, bell), publisher.queues):
            begun = time.monotonic()
            with pytest.raises(BROKER_ERRORS):
                act()
            assert time.monotonic() - begun < SECONDS
