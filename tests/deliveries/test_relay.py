"""Ringing: what becomes due is rung for, once, wherever the first bell was lost; nothing waits for the broker."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.db import connection, transaction

from channels.base import Receipt, ReceiptKind
from chaski.vocabulary import Lane
from config.embedded import EmbeddedValkey
from deliveries import cache, receipts
from deliveries.delivery.database import EngineConnection
from deliveries.doorbell import Bell, Doorbell, Publisher, free_slot, publish_ids, ring_bare
from deliveries.models import Pending
from deliveries.models.services import OrderThen
from deliveries.relay import Relay
from deliveries.retry import Outcome
from deliveries.setting_up import set_order
from tests.deliveries import steps
from tests.deliveries.backlog import fill
from tests.factories import Caller, make_account, make_caller


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedValkey]:
    """A broker of the test's own, which it may stop, with nobody listening."""
    with EmbeddedValkey(tmp_path / "valkey", log=tmp_path / "valkey.log") as valkey:
        client = redis.Redis.from_url(valkey.cache_url, **cache.SHORT)
        monkeypatch.setattr(cache, "client", lambda: client)
        monkeypatch.setattr(
            Publisher,
            "_connect",
            lambda self: _connected(self, current_app.connection_for_write(valkey.url, transport_options=cache.SHORT)),
        )
        yield valkey
        client.close()


def _connected(publisher: Any, fresh: Any) -> Any:
    publisher._connection = publisher._connection or fresh
    return publisher._connection


def bells(valkey: EmbeddedValkey, lane: Lane = Lane.NORMAL) -> list[dict[str, Any]]:
    """What waits in the lane's queue, oldest first."""
    client = redis.Redis.from_url(cache.redis_url(valkey.url))
    raw = client.lrange(str(lane), 0, -1)
    client.close()
    bodies = [base64.b64decode(json.loads(entry)["body"]) for entry in reversed(raw)]
    return [json.loads(body)[1] for body in bodies]


def test_a_bell_names_its_messages_while_the_queue_is_short(broker: EmbeddedValkey) -> None:
    ids = [f"id-{n}" for n in range(150)]
    publish_ids(Publisher(), "sms", Lane.NORMAL, ids)
    first, second = bells(broker)
    assert (first["channel"], first["lane"], first["version"]) == ("sms", "normal", 1)
    assert first["ids"] + second["ids"] == ids


def test_a_crowd_of_messages_gets_one_bare_bell(broker: EmbeddedValkey) -> None:
    publisher = Publisher()
    for _ in range(3):
        publish_ids(publisher, "sms", Lane.BULK, [f"id-{n}" for n in range(5000)])
    (bell,) = bells(broker, Lane.BULK)
    assert bell["ids"] == []


def test_a_bare_bell_stands_once_until_a_worker_answers_it(broker: EmbeddedValkey) -> None:
    publisher = Publisher()
    assert ring_bare(publisher, Bell("sms", Lane.NORMAL, backlog=7, oldest=1.5))
    assert not ring_bare(publisher, Bell("sms", Lane.NORMAL))
    assert ring_bare(publisher, Bell("email", Lane.NORMAL)), "another channel has its own"
    free_slot("sms", Lane.NORMAL)
    assert ring_bare(publisher, Bell("sms", Lane.NORMAL))
    assert (bells(broker)[0]["backlog"], bells(broker)[0]["oldest"]) == (7, 1.5)


def test_a_bell_that_was_lost_is_not_waited_for(broker: EmbeddedValkey) -> None:
    publisher = Publisher()
    assert ring_bare(publisher, Bell("sms", Lane.NORMAL))
    queue = redis.Redis.from_url(cache.redis_url(broker.url))
    queue.flushdb()  # the slots are in another database, or on another server
    queue.close()
    assert ring_bare(publisher, Bell("sms", Lane.NORMAL))
    assert not ring_bare(publisher, Bell("sms", Lane.NORMAL)), "the new one waits"


def test_a_long_queue_gets_no_further_bare_bells(broker: EmbeddedValkey) -> None:
    publisher = Publisher()
    for n in range(64):
        publisher.publish(Bell("sms", Lane.NORMAL, (f"id-{n}",)))
    assert not ring_bare(publisher, Bell("sms", Lane.NORMAL))


def test_ringing_returns_at_once_while_the_broker_hangs_and_the_bells_come_when_it_wakes(
    broker: EmbeddedValkey,
) -> None:
    ringer = Doorbell()
    os.kill(broker.process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for n in range(1000):
        ringer.ring("sms", Lane.NORMAL, [f"id-{n}"])  # type: ignore[list-item]
    took = time.monotonic() - begun
    os.kill(broker.process.pid, signal.SIGCONT)
    assert took < 0.5, "a thousand rings, and not one waited"
    deadline = time.monotonic() + 10
    while not bells(broker):  # what was taken while it hung is the relay's; what came later is not lost
        ringer.ring("sms", Lane.NORMAL, ["another"])  # type: ignore[list-item]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_ringer_remembers_a_bounded_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    ringer = Doorbell()
    monkeypatch.setattr(Doorbell, "_start", lambda _: None)
    for n in range(6000):
        ringer.ring("sms", Lane.NORMAL, [f"id-{n}"])  # type: ignore[list-item]
    assert len(ringer._due["sms", Lane.NORMAL]) == 5000


# -- the relay


@pytest.mark.django_db(transaction=True)
def test_the_relay_rings_for_each_channel_and_lane_with_something_due_that_nobody_takes(shop: Caller) -> None:
    make_account("sms")
    make_account("telegram", name="chat")
    other = make_caller("second").service
    steps.accept(shop.service, 3)
    steps.accept(other, 2, priority="urgent")
    steps.accept(shop.service, channel="telegram", to="12345")
    steps.accept(shop.service, channel="telegram", to="12345", send_at=(steps.now() + timedelta(hours=1)).isoformat())
    steps.begun(steps.claim(1, lane=Lane.URGENT))  # under way: nobody needs to ring for it
    Pending.objects.update(due_at=steps.now() - timedelta(seconds=9))
    Pending.objects.filter(channel="telegram", waiting_for="schedule").update(due_at=steps.now() + timedelta(hours=1))
    relay = Relay()
    due = {(bell.channel, bell.lane): bell for bell in relay.due()}
    relay.close()
    assert {pair: bell.backlog for pair, bell in due.items()} == {
        ("sms", Lane.NORMAL): 3,
        ("sms", Lane.URGENT): 1,
        ("telegram", Lane.NORMAL): 1,
    }
    assert all(bell.oldest is not None and 9 <= bell.oldest < 30 for bell in due.values())


@pytest.mark.django_db(transaction=True)
def test_what_has_just_become_due_is_left_to_its_own_bell(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    relay = Relay()
    assert relay.due() == []
    relay.close()


@pytest.mark.django_db(transaction=True)
def test_two_relays_ring_once_between_them(shop: Caller, broker: EmbeddedValkey) -> None:
    make_account("sms")
    fill(shop.service.pk, 300)
    Pending.objects.update(due_at=steps.now() - timedelta(seconds=9))
    relays = [Relay(), Relay()]
    for relay in relays * 3:
        relay.tick()
    for relay in relays:
        relay.close()
    assert len(bells(broker)) == 1


@pytest.mark.django_db(transaction=True)
def test_an_emptied_broker_is_rung_again_when_the_slot_has_run_out(
    shop: Caller, broker: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_account("sms")
    fill(shop.service.pk, 3)
    Pending.objects.update(due_at=steps.now() - timedelta(seconds=9))
    relay = Relay()
    relay.tick()
    cache.client().flushall()  # type: ignore[union-attr]
    relay.tick()
    relay.close()
    assert len(bells(broker)) == 1


@pytest.mark.django_db(transaction=True)
def test_the_relay_looks_for_blocked_heads_of_services_that_have_a_rule(shop: Caller, broker: EmbeddedValkey) -> None:
    make_account("sms")
    set_order(shop.service, timedelta(seconds=1), OrderThen.SKIP, actor="somebody")
    head, second = steps.accept(shop.service, 2, ordering_key="k")
    steps.send(head, Outcome("throttled", "http_429", retry_after=600.0))
    relay = Relay()
    relay.tick()
    Pending.objects.filter(pk=head).update(blocking_at=steps.now() - timedelta(seconds=2))
    Pending.objects.filter(pk=second).update(due_at=steps.now() - timedelta(seconds=2))
    relay._swept_at = float("-inf")
    relay.tick()
    relay.close()
    assert Pending.objects.get(pk=second).blocked is False


@pytest.mark.django_db(transaction=True)
def test_a_relay_without_a_broker_still_sweeps(shop: Caller, broker: EmbeddedValkey) -> None:
    make_account("sms")
    (message_id,) = steps.accept(shop.service)
    Pending.objects.update(due_at=steps.now() - timedelta(hours=5), expires_at=steps.now() - timedelta(hours=1))
    broker.kill()
    relay = Relay()
    relay.tick()
    relay.close()
    broker.start()
    assert steps.message(message_id).status == "expired"


@pytest.mark.django_db(transaction=True)
def test_strangers_receipts_keep_none_of_ours_beyond_one_go(shop: Caller) -> None:
    """Another system uses the same number: whole pages of receipts that belong to no message stand before our own."""
    make_account("sms")
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome(provider_message_id="SM1"))
    came = [Receipt(f"e{n}", ReceiptKind.DELIVERED, f"nobody's {n}") for n in range(1_500)]
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(steps.account_of(message_id).pk, came)])
        receipts.store(cursor, [(steps.account_of(message_id).pk, [Receipt("ours", ReceiptKind.DELIVERED, "SM1")])])
        cursor.execute("UPDATE receipt SET look_at = look_at - interval '1 minute' WHERE event_id <> 'ours'")
    with closing(EngineConnection()) as its_own:
        assert Relay().apply_receipts(its_own) == 1_501
    assert steps.message(message_id).status == "delivered"
