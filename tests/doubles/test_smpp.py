"""SMPP as the npm package ``smpp`` plays an SMSC: another codec for every PDU, by itself and through the whole of Chaski."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from channels.base import Accepted, InDoubt, Misconfigured, NotSent, Outbound, RecipientRefused, Throttled
from channels.http import HttpClient
from channels.smpp import Smpp
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.server import running
from config.ports import any_free
from config.processes import Process, smpp
from tests.doubles.conftest import SmscDouble
from tests.processes.system import System, wait_for

pytestmark = pytest.mark.doubles

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"
SECRET = "shared by gateway and Chaski"
#: Binds again at once, however short the last one was.
PATIENCE = Patience(steady=0.0)
RECEIPTS = "http://127.0.0.1:9/receipts/1"
LONG = "Año Ñandu {[~]} € " * 30
CYRILLIC = "ваш заказ в пути 👋 " * 20


def settings(smsc: SmscDouble, **changes: str) -> dict[str, str]:
    """An account at the double."""
    given = {"host": "127.0.0.1", "port": str(smsc.port), "system_id": "shop", "password": "s3cret", "system_type": "A"}
    return Smpp.check({**given, "from": "Shop", "gateway_secret": SECRET, **changes})


@asynccontextmanager
async def gateway(account: dict[str, str]) -> AsyncIterator[Smpp]:
    """A gateway for one account, and the worker's side of it. Its Chaski is away."""
    accounts = [GatewayAccount(1, account, RECEIPTS)]
    async with running(lambda: accounts, patience=PATIENCE) as started, HttpClient() as http:
        yield Smpp({**account, "base_url": started.url}, http)


async def send(provider: Smpp, to: str = "+56912345600", **fields: Any) -> Accepted:
    given = {"message_id": MESSAGE_ID, "channel": "sms", "to": to, "text": "Hola", "receipts_url": RECEIPTS}
    return await provider.send(Outbound(**{**given, **fields}))


def sent(account: dict[str, str], *texts: str) -> list[str]:
    """Send each text; the ids."""

    async def run() -> list[str]:
        async with gateway(account) as provider:
            return [(await send(provider, text=text)).provider_message_id for text in texts]

    return asyncio.run(run())


def test_texts_arrive_as_they_were_written_in_one_part_or_many(smsc: SmscDouble) -> None:
    texts = ["Hola, ¿qué tal? @£$ {€}", LONG, "👋", CYRILLIC]
    ids = sent(settings(smsc), *texts)
    messages = smsc.seen()["messages"]
    assert [message["text"] for message in messages] == texts
    assert [message["parts"] for message in messages] == [1, 5, 1, 6]
    assert [message["coding"] for message in messages] == [0, 0, 8, 8]
    assert [message["id"] for message in messages] == ids, "the id of the last part is the message's"
    assert {message["receipt"] for message in messages} == {1}


def test_the_bind_is_what_smpp_3_4_documents_and_ends_in_good_order(smsc: SmscDouble) -> None:
    sent(settings(smsc), "Hola")
    seen = smsc.seen()
    assert seen["binds"] == [{"system_id": "shop", "system_type": "A", "version": 0x34}]
    assert seen["unbinds"] == 1


@pytest.mark.parametrize(
    ("sender", "address"), [("Shop", ("Shop", 5, 0)), ("12345", ("12345", 3, 0)), ("+5691234567", ("5691234567", 1, 1))]
)
def test_senders_have_their_type_and_plan(sender: str, address: tuple[str, int, int], smsc: SmscDouble) -> None:
    sent(settings(smsc, **{"from": sender}), "Hola")
    (message,) = smsc.seen()["messages"]
    assert (message["from"], message["ton"], message["npi"]) == address
    assert message["to"] == "56912345600"


@pytest.mark.parametrize(
    ("to", "expected", "code"),
    [
        ("+56912345658", Throttled, "0x58"),
        ("+56912345611", RecipientRefused, "0x0B"),
        ("+56912345699", InDoubt, "connection_lost"),
    ],
)
def test_what_the_smsc_refuses_or_leaves_open_is_told_apart(
    to: str, expected: type[Exception], code: str, smsc: SmscDouble
) -> None:
    async def run() -> None:
        async with gateway(settings(smsc)) as provider:
            with pytest.raises(expected) as caught:
                await send(provider, to)
            assert caught.value.code == code  # type: ignore[attr-defined]
            assert await send(provider), "the bind is there, or there again"

    asyncio.run(run())


def test_a_refused_login_and_an_smsc_that_is_away_are_told_in_words(smsc: SmscDouble) -> None:
    with pytest.raises(Misconfigured, match="the password is wrong"):
        sent(settings(smsc, password="wrong"), "Hola")
    with pytest.raises(NotSent, match="host and port"):
        sent(settings(smsc, port=str(any_free())), "Hola")


def test_nothing_is_acknowledged_that_chaski_does_not_have(smsc: SmscDouble) -> None:
    async def run() -> int:
        async with gateway(settings(smsc)) as provider:
            await send(provider)
            async with asyncio.timeout(10):
                while len((await asyncio.to_thread(smsc.seen))["acknowledged"]) < 3:
                    pass
            return await asyncio.to_thread(smsc.write, "56912345600", "STOP")

    assert asyncio.run(run()) == 0x64
    assert {each["status"] for each in smsc.seen()["acknowledged"]} == {0x64}


class WithGateway(System):
    """A system that has a gateway too."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.gateway = f"127.0.0.1:{any_free()}"

    def processes(self) -> list[Process]:
        return [*super().processes(), smpp(self.gateway)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[WithGateway]:
    with WithGateway(tmp_path) as running_system:
        yield running_system


@pytest.mark.processes
def test_a_message_goes_out_and_its_receipt_and_a_reply_come_back(system: WithGateway, smsc: SmscDouble) -> None:
    given = {"host": "127.0.0.1", "port": str(smsc.port), "system_id": "shop", "password": "s3cret", "from": "Shop"}
    given |= {"gateway_secret": SECRET.replace(" ", "-"), "base_url": f"http://{system.gateway}"}
    shop = system.new_service(("sms", "smpp", *(f"{name}={value}" for name, value in given.items())))
    message = shop.send("sms", "+56912345600", text=LONG)
    delivered = shop.client.wait(message.id, until="delivered", timeout=30)
    assert delivered.status == "delivered"
    (seen,) = smsc.seen()["messages"]
    assert (seen["text"], shop.attempts(message.id)[-1][1]) == (LONG, "accepted")
    assert smsc.seen()["acknowledged"] == [{"id": seen["id"], "status": 0}]

    assert smsc.write("56912345600", "STOP") == 0
    suppressed = "SELECT count(*) FROM suppression WHERE channel = 'sms' AND recipient = '+56912345600'"
    wait_for(lambda: system.query(suppressed)[0][0], 15, "the suppression")

    process = system.supervisor.children["smpp"].popen
    system.restarted("smpp", system.kill("smpp", signal.SIGTERM))
    assert process.returncode == 0
    assert smsc.seen()["unbinds"] == 1
    again = shop.send("sms", "+56912345601")
    assert shop.client.wait(again.id, until="delivered", timeout=30).status == "delivered"
