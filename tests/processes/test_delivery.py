"""Messages through the whole of Chaski, by real processes: what providers answer decides what becomes of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from channels.simulator.faults import FAULTS, PHONE_PREFIX
from channels.twilio import signature
from config.ports import any_free
from tests.processes.system import System, Tenant, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shop(system: System) -> Tenant:
    """A service with an SMS account at the simulator."""
    return system.new_service(system.twilio())


def faulty(word: str) -> str:
    """The phone number that asks the simulator for a fault."""
    return f"{PHONE_PREFIX}{FAULTS[word].digits}"


def test_a_message_goes_out_and_its_receipts_come_back(system: System, shop: Tenant) -> None:
    message = shop.send("sms", "+56912345678", key="order:1")
    delivered = shop.client.wait(message.id, until="delivered", timeout=15)
    assert delivered.status == "delivered"
    assert system.accepted(str(message.id)) == {str(message.id): 1}
    told = [entry["words"] for entry in system.manage.run("trace", str(message.id), "--json").document["entries"]]
    assert told[0] == "accepted and queued"
    assert any("receipt: delivered" in words for words in told)


def test_the_moment_of_the_request_lies_within_its_attempt(system: System, shop: Tenant) -> None:
    sql = "SELECT begun_at, written_at, finished_at FROM attempt WHERE message_id = %s AND finished_at IS NOT NULL"
    accepted, silent = shop.send("sms", "+56912345678"), shop.send("sms", faulty("timeout_before"))
    begun_at, written_at, finished_at = wait_for(lambda: system.query(sql, accepted.id), 15, "an attempt")[0]
    assert begun_at <= written_at <= finished_at
    begun_at, written_at, finished_at = wait_for(lambda: system.query(sql, silent.id), 15, "an attempt")[0]
    assert begun_at <= written_at < finished_at - timedelta(seconds=1), "silence begins with the request"
    assert shop.client.get(accepted.id).attempts[0]["written_at"]


def test_no_moment_is_kept_where_nothing_left(system: System) -> None:
    channel, provider, _, *options = system.twilio()
    nowhere = system.new_service((channel, provider, f"base_url=http://127.0.0.1:{any_free()}", *options))
    message = nowhere.send("sms", "+56912345678")
    sql = "SELECT outcome, written_at FROM attempt WHERE message_id = %s AND finished_at IS NOT NULL"
    assert wait_for(lambda: system.query(sql, message.id), 15, "an attempt")[0] == ("not_sent", None)
    nowhere.client.cancel(message.id)


def test_a_429_is_waited_for_as_long_as_the_provider_asks(shop: Tenant) -> None:
    message = shop.send("sms", faulty("throttle"))
    shop.client.wait(message.id, until="sent", timeout=20)
    (_, outcome, _, _, refused_at), (_, again, _, begun_at, _) = shop.attempts(str(message.id))
    assert (outcome, again) == ("throttled", "accepted")
    assert begun_at - refused_at >= timedelta(seconds=0.95), "the simulator asks for one second"


def test_a_400_is_not_tried_again(system: System, shop: Tenant) -> None:
    message = shop.send("sms", faulty("reject"))
    failed = shop.client.wait(message.id, timeout=15)
    assert (failed.status, failed.attempt_count, failed.final) == ("failed", 1, True)
    assert failed.error is not None
    assert (failed.error.error_class, failed.error.code) == ("recipient_refused", "21211")
    assert not system.accepted(str(message.id))


@pytest.mark.parametrize("word", ["timeout_before", "reset"])
def test_an_answer_that_never_comes_is_in_doubt_and_resent_once_at_most(
    system: System, shop: Tenant, word: str
) -> None:
    message = shop.send("sms", faulty(word))
    held = wait_for(
        lambda: seen if (seen := shop.client.get(message.id)).status == "in_doubt" else None, 15, "the second doubt"
    )
    assert held.attempt_count == held.in_doubt_count == 2
    assert (held.waiting_for, held.final) == ("operator", False)
    assert [attempt[1] for attempt in shop.attempts(str(message.id))] == ["in_doubt", "in_doubt"]
    system.manage.run("resolve", str(message.id), "failed", "--reason", "the customer has not got it")
    assert shop.client.get(message.id).status == "failed"


@pytest.mark.parametrize("word", ["timeout_after", "reset_after", "rubbish"])
def test_a_receipt_settles_what_the_answer_left_in_doubt(system: System, shop: Tenant, word: str) -> None:
    message = shop.send("sms", faulty(word))
    delivered = shop.client.wait(message.id, until="delivered", timeout=15)
    shop.settled()
    assert system.accepted(str(message.id)).total() <= 1 + delivered.in_doubt_count <= 2


def test_a_server_error_is_tried_again_with_backoff_and_counted_as_a_doubt(shop: Tenant) -> None:
    message = shop.send("sms", faulty("server_error"))
    sent = shop.client.wait(message.id, until="sent", timeout=15)
    assert (sent.attempt_count, sent.in_doubt_count) == (2, 1)


def test_a_scheduled_message_waits_for_its_time_and_can_be_withdrawn(system: System, shop: Tenant) -> None:
    soon = shop.send("sms", "+56912345678", send_at=datetime.now(UTC) + timedelta(seconds=1.5))
    later = shop.send("sms", "+56912345678", send_at=datetime.now(UTC) + timedelta(hours=1))
    waiting = shop.client.get(later.id)
    assert (waiting.status, waiting.waiting_for) == ("queued", "schedule")
    assert shop.client.cancel(later.id).status == "canceled"
    shop.client.wait(soon.id, until="sent", timeout=15)
    begun_at = shop.attempts(str(soon.id))[0][3]
    assert begun_at >= datetime.fromisoformat(str(shop.client.get(soon.id).send_at))
    assert not system.accepted(str(later.id))


def test_what_is_not_sent_by_its_deadline_expires(system: System, shop: Tenant) -> None:
    system.pause(shop.name)
    message = shop.send("sms", "+56912345678", expires_at=datetime.now(UTC) + timedelta(seconds=1.5))
    expired = shop.client.wait(message.id, timeout=15)
    system.manage.run("resume", "--service", shop.name)
    assert (expired.status, expired.attempt_count) == ("expired", 0)
    assert not system.accepted(str(message.id))


def test_the_kill_switch_stops_claiming_within_two_seconds_while_acceptance_goes_on(
    system: System, shop: Tenant
) -> None:
    shop.settled()
    system.manage.run("pause", "--channel", "sms")
    try:
        time.sleep(2)  # what the contract allows
        message = shop.send("sms", "+56912345678")
        seen = shop.client.get(message.id)
        assert (seen.status, seen.waiting_for) == ("queued", "paused")
        time.sleep(1)  # ten ticks of the relay
        assert shop.client.get(message.id).attempt_count == 0
    finally:
        system.manage.run("resume", "--channel", "sms")
    assert shop.client.wait(message.id, until="sent", timeout=15).status in ("sent", "delivered")


def test_messages_of_one_ordering_key_go_out_one_after_the_other(shop: Tenant) -> None:
    ids = [str(shop.send("sms", "+56912345678", ordering_key="order:7", text=f"step {n}").id) for n in range(6)]
    for message_id in ids:
        shop.client.wait(message_id, until="sent", timeout=20)
    spans = [shop.attempts(message_id)[0][3:5] for message_id in ids]
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(spans)), spans


def test_wrong_credentials_stop_the_account_and_burn_no_message(system: System) -> None:
    shop = system.new_service(system.twilio())
    message = shop.send("sms", faulty("auth"))
    waiting = wait_for(
        lambda: seen if (seen := shop.client.get(message.id)).waiting_for == "operator" else None, 15, "the stop"
    )
    assert waiting.status == "queued"
    time.sleep(1)  # every worker has read the stop
    behind = shop.send("sms", "+56912345678")
    assert shop.client.get(behind.id).waiting_for == "operator"
    stopped = system.query("SELECT stopped_reason FROM account WHERE name = %s", f"sms-{shop.name}")
    assert stopped[0][0].startswith("20003")
    shop.client.cancel(message.id)
    system.manage.run("resume", "--account", f"sms-{shop.name}")
    assert shop.client.wait(behind.id, until="sent", timeout=15).status in ("sent", "delivered")
    system.must_balance()


def test_a_service_is_told_the_events_of_its_messages(system: System) -> None:
    shop = system.new_service(system.twilio())
    system.manage.run("endpoint", "set", shop.name, f"http://127.0.0.1:{system.ports.simulator}/webhook/callbacks")
    message = shop.send("sms", "+56912345678")
    shop.client.wait(message.id, until="delivered", timeout=15)
    told = "SELECT status FROM message WHERE service_id = %s AND origin = 'callback'"
    wait_for(lambda: {row[0] for row in system.query(told, shop.id)} == {"sent"}, 15, "callbacks that were delivered")
    callbacks = [row[0] for row in system.query("SELECT id::text FROM message WHERE origin = 'callback'")]
    assert system.accepted(*callbacks).total() == len(callbacks)


def test_a_reply_reaches_the_service_as_a_callback(system: System) -> None:
    asking = system.new_service(system.twilio(), system.webhook())
    system.manage.run("endpoint", "set", asking.name, f"{system.vendor_url}/webhook/hook", "--events", "reply")
    message = asking.send("sms", "+56912340001")
    asking.client.wait(message.id, until="sent", timeout=15)
    account = system.query("SELECT public_id FROM account WHERE service_id = %s AND channel = 'sms'", asking.id)[0][0]
    url = f"{system.url}/receipts/{account}"
    form = {"MessageSid": "SM" + "1" * 32, "SmsStatus": "received", "From": "+56912340001", "Body": "Gracias"}
    signed = signature("simulated", url, list(form.items())).decode()
    with urlopen(Request(url, urlencode(form).encode(), {"X-Twilio-Signature": signed})) as answer:
        assert answer.status == 200
    callback = "SELECT status, options FROM message WHERE service_id = %s AND origin = 'callback'"
    wait_for(lambda: [row[0] for row in system.query(callback, asking.id)] == ["sent"], 20, "the callback")
    data = system.query(callback, asking.id)[0][1]["payload"]["data"]
    assert (data["text"], data["from"], data["message_id"]) == ("Gracias", "+56912340001", str(message.id))


def test_what_waits_for_an_account_that_is_down_goes_by_the_other(system: System) -> None:
    channel, provider, _, *options = system.twilio()
    shop = system.new_service(system.twilio())
    dead = [word for option in (f"base_url=http://127.0.0.1:{any_free()}", *options) for word in ("--option", option)]
    system.manage.run("account", "create", channel, provider, "dead", "--service", shop.name, *dead, "--json")
    system.manage.run("route", "set", shop.name, "sms", "dead", f"sms-{shop.name}:0")
    ids = shop.send_many(60, "sms")
    shop.settled(60)
    carried = "SELECT a.name, count(*) FROM message m JOIN account a ON a.id = m.account_id WHERE m.service_id = %s GROUP BY 1"
    assert dict(system.query(carried, shop.id)) == {f"sms-{shop.name}": 60}
    assert set(system.accepted(*ids)) == set(ids)
    assert (
        system.query("SELECT count(DISTINCT message_id) FROM reroute WHERE message_id = ANY(%s::uuid[])", ids)[0][0] > 0
    )
