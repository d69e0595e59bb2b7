"""What is told twice, by the broker or by a client, is done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from tests.processes.system import System, Tenant

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shop(system: System) -> Tenant:
    """A service with an SMS account at the simulator."""
    return system.new_service(system.twilio())


def test_many_rings_for_one_message_deliver_it_once(system: System, shop: Tenant) -> None:
    system.pause(shop.name)
    message = shop.send("sms", "+56912345678")
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        for _ in range(20):
            _ring(broker, str(message.id))
    system.manage.run("resume", "--service", shop.name)
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        for _ in range(20):
            _ring(broker, str(message.id))
    shop.client.wait(message.id, until="sent", timeout=15)
    shop.settled()
    assert system.accepted(str(message.id)) == {str(message.id): 1}
    assert len(shop.attempts(str(message.id))) == 1


def _ring(broker: Connection, message_id: str) -> None:
    """Publish a delivery task by hand, as any version of Chaski would."""
    arguments = {"version": 1, "channel": "sms", "lane": "normal", "ids": [message_id]}
    broker.SimpleQueue("normal").put(
        [[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        serializer="json",
        headers={
            "lang": "py",
            "task": "deliver.sms",
            "id": f"by-hand-{message_id}",
            "argsrepr": "()",
            "kwargsrepr": "",
        },
    )


def test_twenty_equal_requests_at_once_are_one_message_and_one_delivery(system: System, shop: Tenant) -> None:
    def send(_: int) -> str:
        return str(shop.send("sms", "+56912345678", key="paid:77").id)

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(send, range(20)))
    assert len(ids) == 1
    message_id = ids.pop()
    shop.client.wait(message_id, until="sent", timeout=15)
    shop.settled()
    assert system.accepted(message_id) == {message_id: 1}
    kept = system.query("SELECT count(*) FROM message WHERE idempotency_key = 'paid:77' AND service_id = %s", shop.id)
    assert kept == [(1,)]
