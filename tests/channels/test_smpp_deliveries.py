"""What an SMSC delivers to the SMPP gateway is acknowledged when Chaski has it."""

from __future__ import annotations

from channels.base import Receipt, ReceiptKind, Reply
from tests.channels.smpp_office import Start
from tests.channels.smsc import Smsc, delivery

RECEIPT = b"id:id-1 sub:001 dlvrd:001 submit date:2611281200 done date:2611281201 stat:DELIVRD err:000 text:"


async def test_a_receipt_is_acknowledged_once_chaski_has_it(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    session = await smsc.bound()
    office.chaski.away = True
    assert await session.deliver(delivery(RECEIPT, esm_class=4)) == 0x64
    assert office.chaski.told == []
    office.chaski.away = False
    assert await session.deliver(delivery(RECEIPT, esm_class=4)) == 0
    (receipt,) = office.chaski.told
    assert isinstance(receipt, Receipt)
    assert (receipt.kind, receipt.provider_message_id) == (ReceiptKind.DELIVERED, "id-1")


async def test_a_reply_that_is_repeated_is_one_and_the_same_words_again_are_two(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    session = await smsc.bound()
    for away in (True, False, False):
        office.chaski.away = away
        await session.deliver(delivery(b"ok"))
    assert [reply.text for reply in office.chaski.told if isinstance(reply, Reply)] == ["ok", "ok"]
    assert len({each.event_id for each in office.chaski.told}) == 2
    bodies = [request.partition(b"\r\n\r\n")[2] for request in office.chaski.server.requests]
    assert bodies[0] == bodies[1], "the repeat of what was not taken is the same event"


async def test_what_is_no_delivery_is_refused_for_good(gateway: Start, smsc: Smsc) -> None:
    await gateway()
    assert await (await smsc.bound()).deliver(b"\0\1") == 0x65
