"""Our transport: what outlives a lost connection fails as callers expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection
from structlog.testing import capture_logs

import config.celery  # noqa: F401 - names our transport
from config.broker import Transport
from config.embedded import EmbeddedValkey


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with (
        EmbeddedValkey(tmp_path / "valkey", log=tmp_path / "valkey.log") as valkey,
        Connection(valkey.url) as connection,
    ):
        connection.default_channel  # noqa: B018 - opens it
        yield connection


def test_ours_is_in_use(connection: Connection) -> None:
    assert isinstance(connection.transport, Transport)


def test_acknowledging_after_the_connection_was_lost_is_a_connection_error(connection: Connection) -> None:
    channel = connection.default_channel
    lost = connection.connection_errors
    connection.collect()
    with pytest.raises(lost):
        channel.qos.ack("a-tag")


def test_what_is_no_task_is_named_by_its_queue_where_no_worker_listens(connection: Connection) -> None:
    with capture_logs() as logs:
        connection.transport._deliver({"to": "+56912345678"}, "normal")
    ((queue, event),) = ((log["queue"], log["event"]) for log in logs)
    assert (queue, event) == ("normal", "unreadable_element_dropped")
    assert "56912345678" not in str(logs)
