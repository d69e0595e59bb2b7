"""What held means: nothing is claimed, swept, expired, asked or told; and who asks the witnesses when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from channels.http import HttpClient
from chaski.vocabulary import Lane
from deliveries import acts, heartbeat, lineage, pausing, restoring
from deliveries.delivery import engine
from deliveries.delivery.accounts import Accounts
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.reconcile import Reconciler
from deliveries.delivery.recorder import Recorder
from deliveries.lineage import Guard
from deliveries.models import Inquiry, Lineage, Untold
from deliveries.models.accounts import InDoubtPolicy
from deliveries.models.control import PauseScope
from deliveries.relay import Relay
from deliveries.restoring import Verdict
from deliveries.retry import Policy
from deliveries.witnesses import ValkeyWitness
from tests.deliveries import broken_rows, steps
from tests.deliveries.lineages import advance, balanced, come_from_elsewhere, hold, look, process, restore_to
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


def test_nothing_is_claimed_while_it_is_held_and_resume_does_not_let_it_go(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    hold()
    assert not steps.claim()
    acts.resume(PauseScope.ALL, "", actor="somebody")
    assert not steps.claim()
    with connection.cursor() as cursor:
        assert pausing.read(cursor).everything


@pytest.mark.django_db(transaction=True)
def test_a_worker_looks_by_itself_before_its_first_claim(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    make_account("sms")
    steps.accept(shop.service)
    look(Guard(()))
    come_from_elsewhere()
    worker = engine.Engine("worker-of-a-test")
    worker._accounts = Accounts(HttpClient(), worker.loop)
    try:
        assert worker.drain("sms", Lane.BULK, (), "task-of-a-test").claimed == 0
    finally:
        worker._claims.close()
    assert Lineage.objects.get().held_at


def test_a_held_database_does_not_count_on(valkey: ValkeyWitness) -> None:
    """Its last sign of life tells the time of the backup, and the witnesses stay what they are."""
    before = hold()
    advance(process(valkey))
    after = look(Guard(()))
    assert (after.counter, after.advanced_at) == (before.counter, before.advanced_at)


@pytest.mark.django_db(transaction=True)
def test_the_relay_ends_expires_and_tells_nothing_while_it_is_held_and_goes_on_when_it_is_armed(
    shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    make_account("sms")
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")
    told = broken_rows.sent(shop.service)[0]
    steps.accept(shop.service, send_at=steps.now() + timedelta(milliseconds=1))
    (expired,) = steps.accept(shop.service)
    (leased,) = broken_rows.leased(shop.service)
    with connection.cursor() as cursor:
        for sql in (
            "UPDATE message SET created_at = created_at - interval '2 hours', expires_at = chaski_now() - interval '1 hour'"
            " WHERE id = %(id)s",
            "UPDATE acceptance SET accepted_at = accepted_at - interval '2 hours' WHERE message_id = %(id)s",
            "UPDATE pending p SET expires_at = m.expires_at FROM message m WHERE m.id = p.message_id AND m.id = %(id)s",
            "UPDATE pending SET lease_until = chaski_now() - interval '1 hour' WHERE lease_until IS NOT NULL",
        ):
            cursor.execute(sql, {"id": expired})
    hold()
    with closing(Relay()) as relay:
        relay.tick()
        assert Untold.objects.filter(message_id=told).exists()
        assert steps.message(expired).status == "queued"
        assert steps.pending(leased).lease_token is not None  # type: ignore[union-attr]
        assert balanced(), "what waits to be armed is no violation"
        assert not relay.due(), "and nobody is rung for it"
        restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
        relay._swept_at = float("-inf")
        relay.tick()
    assert not Untold.objects.filter(message_id=told).exists()
    assert steps.message(expired).status == "expired"
    assert steps.message(leased).in_doubt_count == 1


def test_nobody_is_asked_about_a_doubt_while_it_is_held(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ask would move messages from before, until an operator decides about them."""
    make_account("sms", in_doubt_policy=InDoubtPolicy.RECONCILE)
    (doubtful,) = steps.accept(shop.service)
    steps.send(doubtful, steps.REFUSALS["in_doubt"], Policy(ask_after_seconds=60.0))
    hold()
    reconciler = Reconciler(asyncio.new_event_loop())
    monkeypatch.setattr(reconciler._connection, "transaction", on_djangos_connection)
    monkeypatch.setattr(reconciler, "_accounts_of", lambda *_: pytest.fail("something was taken"))
    with steps.later(timedelta(hours=1)):
        assert reconciler.look() == 0
    assert not Inquiry.objects.filter(asked__gt=0).exists()
    reconciler._loop.close()


@contextmanager
def on_djangos_connection() -> Iterator[CursorWrapper]:
    with transaction.atomic(), connection.cursor() as cursor:
        yield cursor


# -- the network is not asked in a transaction


class Watched:
    """A witness that notes whether it is asked with the lock of the database's connection held."""

    name = "watched"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.inside = False

    def known(self) -> Mapping[UUID, int]:
        self.asked.append("in a transaction" if self.inside else "outside")
        return {}

    def saw(self, lineage: UUID, counter: int) -> None:
        self.known()


def test_looks_and_counts_leave_the_witnesses_alone_until_the_commit() -> None:
    witness = Watched()
    guard = process(witness)
    for _ in range(2):
        with transaction.atomic(), connection.cursor() as cursor:
            witness.inside = True
            guard.look(cursor)
            tell = guard.advance(cursor)
            witness.inside = False
        tell()
    assert set(witness.asked) == {"outside"}
    assert len(witness.asked) == 1 + 2 * 2


def test_a_process_asks_its_witnesses_once_before_anybody_has_its_guard(
    monkeypatch: pytest.MonkeyPatch, valkey: ValkeyWitness
) -> None:
    advance(process(valkey), 3)
    restore_to(1)
    monkeypatch.setattr(lineage, "_guard", None)
    monkeypatch.setattr(lineage, "of_this_process", lambda: [valkey])
    assert look(lineage.guard()).held
    assert lineage.guard() is lineage.guard()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["worker", "relay"])
def test_workers_and_relays_ask_when_they_start_and_open_no_transaction_before(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Watched()
    monkeypatch.setattr(lineage, "_guard", None)
    monkeypatch.setattr(lineage, "of_this_process", lambda: [witness])
    opened: list[int] = []
    monkeypatch.setattr(EngineConnection, "transaction", lambda self: opened.append(len(witness.asked)) or 1 / 0)
    if kind == "worker":
        monkeypatch.setattr(Recorder, "start", lambda self: opened.append(len(witness.asked)))
        worker = engine.Engine("worker-of-a-test")
        worker.start()
        worker.finish(1)
        worker.loop.call_soon_threadsafe(worker.loop.stop)
        worker._thread.join(5)
        worker.loop.close()
    else:
        relay = Relay()
        relay.stopping.set()
        relay.run()
    assert witness.asked == ["outside"]
    assert set(opened) <= {1}


@pytest.mark.django_db(transaction=True)
def test_a_heartbeat_that_finds_no_database_still_asks_the_witnesses() -> None:
    witness = Watched()
    lineage._guard = process(witness)
    gone = EngineConnection()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gone, "_open", lambda: (_ for _ in ()).throw(psycopg.OperationalError("away")))
        heartbeat.beat(gone, "worker-of-a-test", "worker")
    assert witness.asked == ["outside", "outside"]
