"""Messages through the whole of Chaski, by real processes: what providers answer decides what becomes of them."""

from __future__ import annotations

import pytest

from tests.processes.system import System, wait_for

pytestmark = pytest.mark.processes


def test_a_message_goes_out_and_its_receipts_come_back(system: System) -> None:
    shop = system.new_service(system.twilio())
    message = shop.send("sms", "+56912345678")
    delivered = shop.client.wait(message.id, until="delivered", timeout=15)
    assert delivered.status == "delivered"
    assert system.accepted(str(message.id)) == {str(message.id): 1}
    trace = system.manage.run("trace", str(message.id), "--json").document
    assert trace
    wait_for(lambda: system.ledger()["balanced"], 5, "a balanced ledger")
