"""Accounts that ask instead of sending blindly, by real processes: the simulator's own books say what it has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from channels.simulator.faults import FAULTS, PHONE_PREFIX
from tests.processes.system import System, Tenant, wait_for

pytestmark = pytest.mark.processes


def asking(system: System, channel: str, provider: str, *options: str) -> Tenant:
    """A service whose account asks its provider."""
    shop = system.new_service()
    given = [word for option in options for word in ("--option", option)]
    account = (channel, provider, f"asks-{shop.name}", "--service", shop.name, "--in-doubt", "reconcile")
    system.manage.run("account", "create", *account, *given, "--json")
    return shop


@contextmanager
def without_the_relay(system: System) -> Iterator[None]:
    """No receipt is applied meanwhile, and nobody rings but the web server."""
    pid = system.supervisor.children["relay"].popen.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_message_that_the_provider_took_without_an_answer_is_found_and_not_sent_again(system: System) -> None:
    shop = asking(system, *system.twilio())
    with without_the_relay(system):
        # Words of its own: two equal texts to one recipient could not be told apart.
        message = shop.send("sms", f"{PHONE_PREFIX}{FAULTS['reset_after'].digits}", text=f"Pedido de {shop.name}")
        found = shop.client.wait(message.id, until="sent", timeout=40)
    assert (found.status, found.in_doubt_count, found.attempt_count) == ("sent", 1, 1)
    assert found.provider_message_id
    assert "found at the provider" in [event["reason"] for event in found.events]
    assert system.accepted(str(message.id)) == {str(message.id): 1}
    shop.client.wait(message.id, until="delivered", timeout=20)
    system.must_balance()


def test_a_message_that_the_provider_does_not_have_is_sent_again(system: System) -> None:
    shop = asking(system, *system.twilio())
    ends = datetime.now(UTC) + timedelta(seconds=60)
    message = shop.send("sms", f"{PHONE_PREFIX}{FAULTS['reset'].digits}", expires_at=ends)
    wait_for(lambda: len(shop.attempts(str(message.id))) > 1, 40, "a second attempt")
    seen = shop.client.get(message.id)
    assert any("the provider does not have it" in event["reason"] for event in seen.events)
    assert not system.accepted(str(message.id))


@pytest.mark.faults
@pytest.mark.thorough
def test_what_a_killed_worker_had_under_way_is_asked_for(system: System) -> None:
    shop = asking(system, "sms", "sandbox", "latency_ms=1000")
    shop.send_many(100)
    sql = (
        "SELECT split_part(a.worker, '@', 1) FROM attempt a JOIN message m ON m.id = a.message_id WHERE m.service_id = %s"
        " AND a.begun_at IS NOT NULL AND a.finished_at IS NULL GROUP BY 1 HAVING count(*) > 20"
    )
    ((name,), *_) = wait_for(lambda: system.query(sql, shop.id), 20, "calls under way")
    pid = system.kill(name)
    wait_for(lambda: shop.statuses() == {"sent": 100}, 60, "the end of every message")
    assert max(shop.doubts().values()) == 1
    assert system.query("SELECT max(attempt_count) FROM message WHERE service_id = %s", shop.id) == [(1,)]
    system.must_balance()
    system.restarted(name, pid)
