"""Signs of life: by the database's clock, and from a thread that nothing ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from deliveries import heartbeat
from deliveries.delivery.database import EngineConnection
from deliveries.models import Heartbeat
from deliveries.sql import Cursor
from tests.deliveries import steps

pytestmark = pytest.mark.django_db


class OnTheTestsConnection(EngineConnection):
    """Whose clock a test can move."""

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        with transaction.atomic(), connection.cursor() as cursor:
            yield cursor


def test_the_last_claim_is_told_by_the_clock_of_the_database() -> None:
    claims = SimpleNamespace(worker="worker-of-a-test", claimed_at=time.monotonic() - 40)
    with steps.later(timedelta(hours=3)):
        heartbeat.beat_for(claims, OnTheTestsConnection(), "worker", "normal")
        kept = Heartbeat.objects.get()
        assert timedelta(seconds=39) < steps.now() - kept.claimed_at < timedelta(seconds=60)


def test_a_worker_that_has_claimed_nothing_yet_says_so() -> None:
    heartbeat.beat_for(SimpleNamespace(worker="w", claimed_at=None), OnTheTestsConnection(), "worker", "normal")
    assert Heartbeat.objects.get().claimed_at is None


def test_a_sign_of_life_that_fails_in_a_way_that_nobody_expects_ends_no_thread() -> None:
    with capture_logs() as logs:
        heartbeat.beat_for(SimpleNamespace(worker="w", claimed_at="now"), OnTheTestsConnection(), "worker", "normal")
    assert [(log["event"], log["work"]) for log in logs] == [("round_failed", "heartbeat")]
