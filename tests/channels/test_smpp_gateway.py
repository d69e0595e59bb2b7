"""A message on its way through the SMPP gateway: what was written, what was answered, and that nothing else is claimed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.base import (
    InDoubt,
    Misconfigured,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.smpp_gateway.pdu import RESPONSE, Command, Pdu
from channels.smpp_gateway.window import SendWindow
from tests.channels import smsc as sides
from tests.channels.contract import MESSAGE_ID
from tests.channels.smpp_office import Start, until
from tests.channels.smsc import Session, Smsc


async def test_a_message_is_submitted_and_gives_the_smscs_id(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    assert (await office.send()).provider_message_id == "id-1"
    body = smsc.submitted[0].body
    assert body == (b"\0\x05\0Shop\0\x01\x0156912345678\0\0\0\0\0\0\x01\0\0\0\x19Your order is on its way.")
    assert smsc.binds == [b"shop\0s3cret\0\0\x34\0\0\0"]


async def test_many_messages_share_one_bind_and_its_window(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(window="3")
    held: list[Any] = []

    async def holds(session: sides.Session, come: Any) -> None:
        held.append((session, come))

    smsc.on_submit = holds
    sending = [asyncio.ensure_future(office.send(text=f"no. {number}")) for number in range(8)]
    taken = 0
    while taken < 8:
        await until(lambda: held)
        assert len(held) <= 3
        session, come = held.pop()  # the last first: answers come in any order
        await sides.accepts(session, come)
        taken += 1
    assert len({(await each).provider_message_id for each in sending}) == 8
    assert len(smsc.binds) == 1


async def test_each_answer_goes_to_its_own_message(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()

    async def echoes(session: sides.Session, come: Any) -> None:
        session.answer(come, body=come.body[-3:] + b"\0")

    smsc.on_submit = echoes
    given = await asyncio.gather(*(office.send(text=f"order {number:03}") for number in range(50)))
    assert [each.provider_message_id for each in given] == [f"{number:03}" for number in range(50)]


async def test_a_long_text_goes_in_parts_of_which_the_last_asks_for_a_receipt(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    assert (await office.send(text="x" * 400)).provider_message_id == "id-3"
    asked = [each.body[each.body.index(b"56912345678\0") + 12 :] for each in smsc.submitted]
    assert [rest[0] for rest in asked] == [0x40] * 3
    assert [rest[5] for rest in asked] == [0, 0, 1]


@pytest.mark.parametrize(
    ("status", "expected"), [(0x58, Throttled), (0x14, Throttled), (0x0B, RecipientRefused), (0x0A, Misconfigured)]
)
async def test_a_refusal_of_the_smsc_is_a_refusal(
    status: int, expected: type[SendError], gateway: Start, smsc: Smsc
) -> None:
    office = await gateway()
    smsc.on_submit = sides.refuses(status)
    assert type(await office.refused()) is expected
    assert type(await office.refused(text="x" * 400)) is expected
    assert len(smsc.submitted) == 2, "after the first part of a long text nothing more is sent"


@pytest.mark.parametrize(
    ("command", "expected"),
    [(Command.GENERIC_NACK, Transient), (Command.ENQUIRE_LINK | RESPONSE, InDoubt)],
    ids=["a no without a status", "an answer to something else"],
)
async def test_an_answer_that_is_no_yes_is_none(
    command: int, expected: type[SendError], gateway: Start, smsc: Smsc
) -> None:
    async def careless(session: Session, come: Pdu) -> None:
        session.writer.write(Pdu(command, come.sequence).written())

    office = await gateway()
    smsc.on_submit = careless
    assert type(await office.refused()) is expected


async def test_a_throttled_part_is_offered_again_until_the_text_is_whole(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.in_turn(sides.accepts, sides.refuses(0x58), sides.refuses(0x58), sides.accepts)
    await office.send(text="x" * 400)
    assert len(smsc.submitted) == 5


async def test_a_text_of_which_a_part_is_refused_for_good_is_in_doubt(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.in_turn(sides.accepts, sides.refuses(0x0B), sides.accepts)
    error = await office.refused(text="x" * 400)
    assert (type(error), error.code) == (InDoubt, "partly_taken")
    assert "2 of its parts" in error.detail


async def test_throttles_shrink_the_window(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(window="8")
    smsc.on_submit = sides.refuses(0x58)
    for _ in range(3):
        assert type(await office.refused()) is Throttled
    smsc.on_submit = sides.silent
    smsc.submitted.clear()
    sending = [asyncio.ensure_future(office.refused(seconds=1.0)) for _ in range(4)]
    classes = [type(await each) for each in sending]
    assert sorted(cls.__name__ for cls in classes) == ["InDoubt", "Throttled", "Throttled", "Throttled"]
    assert len(smsc.submitted) == 1


def test_acceptances_widen_the_window_again() -> None:
    window = SendWindow(8)
    for _ in range(5):
        window.throttled()
    assert window.free == 1
    window.begin()
    assert window.free == 0
    window.end()
    for _ in range(100):
        window.accepted()
    assert window.free == 8


async def test_silence_of_the_smsc_is_in_doubt_and_a_full_window_sends_nothing(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(window="1")
    smsc.on_submit = sides.silent
    first = asyncio.ensure_future(office.refused(seconds=1.0))
    await smsc.until(lambda there: there.submitted)
    second = await office.refused(seconds=1.0)
    assert (type(second), second.code) == (Throttled, "window_full")
    assert (type(await first), (await first).code) == (InDoubt, "timeout")
    assert len(smsc.submitted) == 1


async def test_an_answer_that_comes_after_the_worker_gave_up_is_told(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.silent
    error = await office.refused(seconds=0.5)
    assert (type(error), error.code) == (InDoubt, "timeout")
    await sides.accepts((await smsc.bound()), smsc.submitted[0])
    await until(lambda: office.chaski.told)
    (receipt,) = office.chaski.told
    assert isinstance(receipt, Receipt)
    assert (receipt.kind, receipt.message_id, receipt.provider_message_id) == (ReceiptKind.SENT, MESSAGE_ID, "id-1")


async def test_an_answer_that_no_worker_waits_for_any_more_is_told(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.silent
    sending = asyncio.ensure_future(office.send())
    await smsc.until(lambda there: there.submitted)
    sending.cancel()  # as by the end of its process
    await asyncio.wait({sending})
    await sides.accepts((await smsc.bound()), smsc.submitted[0])
    await until(lambda: office.chaski.told)
    (receipt,) = office.chaski.told
    assert isinstance(receipt, Receipt)
    assert (receipt.kind, receipt.message_id) == (ReceiptKind.SENT, MESSAGE_ID)


async def test_a_late_refusal_is_not_told_for_nothing_can_be_undone(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.silent
    await office.refused(seconds=0.5)
    (await smsc.bound()).answer(smsc.submitted[0], 0x58)
    smsc.on_submit = sides.accepts
    await office.send()
    assert office.chaski.told == []


async def test_nothing_more_of_a_long_text_is_sent_once_the_worker_gave_up(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.silent
    assert type(await office.refused(seconds=0.5, text="x" * 400)) is InDoubt
    smsc.on_submit = sides.accepts
    await sides.accepts((await smsc.bound()), smsc.submitted[0])
    await office.send(text="another")
    assert len(smsc.submitted) == 2
    assert office.chaski.told == []


async def test_a_connection_that_breaks_behind_a_message_leaves_it_in_doubt(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.in_turn(sides.cuts, sides.accepts)
    error = await office.refused()
    assert (type(error), error.code) == (InDoubt, "connection_lost")
    assert (await office.send()).provider_message_id == "id-1"
    assert len(smsc.binds) == 2


async def test_a_connection_that_breaks_within_a_long_text_leaves_it_in_doubt(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    smsc.on_submit = sides.in_turn(sides.accepts, sides.cuts)
    assert type(await office.refused(text="x" * 400)) is InDoubt
