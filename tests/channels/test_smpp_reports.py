"""What SMSCs deliver: receipts in the forms that vendors give them, and what people write."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Receipt, ReceiptKind, Reply, Unreadable
from channels.smpp_gateway import pdu
from channels.smpp_gateway.exchange import Address, Delivered
from channels.smpp_reports import ID_FORMS, answered_id, read
from tests.channels.smsc import delivery, parameter

RECEIPT = 0x04
TEXT = (
    b"id:0123456789 sub:001 dlvrd:001 submit date:2611281200 done date:2611281201 stat:%s err:%s text:Your order is on"
)
OCTETS = st.binary(max_size=120)


def receipt(message: bytes = b"", id_form: str = "same", **fields: object) -> Receipt:
    delivered = Delivered(Address("56912345678", 1, 1), Address("Shop", 5), RECEIPT, message=message)
    found = read(Delivered(**{name: getattr(delivered, name) for name in Delivered.__slots__} | fields), "e1", id_form)  # type: ignore[arg-type]
    assert isinstance(found, Receipt)
    return found


@pytest.mark.parametrize(
    ("word", "error", "kind", "code"),
    [
        (b"DELIVRD", b"000", ReceiptKind.DELIVERED, ""),
        (b"UNDELIV", b"034", ReceiptKind.UNDELIVERED, "034"),
        (b"EXPIRED", b"000", ReceiptKind.UNDELIVERED, "EXPIRED"),
        (b"REJECTD", b"0A1", ReceiptKind.UNDELIVERED, "0A1"),
        (b"DELETED", b"000", ReceiptKind.UNDELIVERED, "DELETED"),
        (b"ENROUTE", b"000", ReceiptKind.SENT, ""),
        (b"ACCEPTD", b"000", ReceiptKind.SENT, ""),
        (b"UNKNOWN", b"000", ReceiptKind.INFO, ""),
        (b"BUFFERD", b"000", ReceiptKind.INFO, ""),
    ],
)
def test_the_text_of_a_receipt_says_what_became_of_a_message(
    word: bytes, error: bytes, kind: ReceiptKind, code: str
) -> None:
    found = receipt(TEXT % (word, error))
    assert (found.kind, found.provider_message_id, found.code) == (kind, "0123456789", code)
    assert word.decode() in found.detail


def test_the_same_receipt_is_the_same_event_and_another_state_another() -> None:
    first, again = receipt(TEXT % (b"ENROUTE", b"000")), receipt(TEXT % (b"ENROUTE", b"000"))
    assert first.event_id == again.event_id != receipt(TEXT % (b"DELIVRD", b"000")).event_id


def test_parameters_say_it_before_the_text() -> None:
    parameters = {0x001E: b"AB_12\0", 0x0427: b"\x02"}
    found = receipt(TEXT % (b"ENROUTE", b"000"), parameters=parameters)
    assert (found.kind, found.provider_message_id) == (ReceiptKind.DELIVERED, "AB_12")
    plain = receipt(b"", parameters=parameters, esm_class=0)
    assert (plain.kind, plain.provider_message_id) == (ReceiptKind.DELIVERED, "AB_12")


@pytest.mark.parametrize("text", [b"", b"id:7", b"stat:DELIVRD", b"id: stat:DELIVRD", b"hello"])
def test_a_receipt_without_a_message_or_a_state_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unreadable):
        receipt(text)


def test_an_id_with_an_underscore_stays_what_it_was() -> None:
    assert receipt(b"id:a_b stat:DELIVRD err:000").provider_message_id == "a_b"


@pytest.mark.parametrize(
    ("id_form", "answered", "reported"),
    [
        ("same", "0aF3", "0aF3"),
        ("hex/decimal", "0AF3", "2803"),
        ("hex/decimal", "af3", "0000002803"),
        ("decimal/hex", "2803", "AF3"),
        ("hex/hex", "0AF3", "af3"),
        ("decimal/decimal", "42", "0000000042"),
    ],
)
def test_one_id_in_two_forms_is_one_id(id_form: str, answered: str, reported: str) -> None:
    assert id_form in ID_FORMS
    found = receipt(f"id:{reported} stat:DELIVRD err:000".encode(), id_form)
    assert found.provider_message_id == answered_id(answered, id_form)


def test_an_id_that_is_not_in_its_form_is_left_as_it_is() -> None:
    assert answered_id("msg-77", "hex/decimal") == "msg-77"


def test_what_a_person_writes_is_a_reply() -> None:
    source = Address("56912345678", 1, 1)
    assert read(Delivered(source, Address("Shop"), message=b"STOP"), "e1", "same") == Reply(
        "reply:e1", "+56912345678", "STOP"
    )
    cyrillic = Delivered(Address("79161234567"), Address("Shop"), data_coding=8, message="да".encode("utf-16-be"))
    assert read(cyrillic, "e2", "same") == Reply("reply:e2", "+79161234567", "да")
    part = Delivered(Address("12345", 3), Address("Shop"), 0x40, message=b"\x05\x00\x03\x01\x02\x01Hola")
    assert read(part, "e3", "same") == Reply("reply:e3", "12345", "Hola")


def test_nobody_can_write_a_receipt() -> None:
    forged = Delivered(Address("56912345678", 1), Address("Shop"), message=b"id:0123456789 stat:DELIVRD err:000")
    assert isinstance(read(forged, "e1", "same"), Reply)


@pytest.mark.parametrize("esm_class", [0x08, 0x10])
def test_what_a_phone_acknowledges_is_no_reply(esm_class: int) -> None:
    with pytest.raises(Unreadable):
        read(Delivered(Address("1"), Address("2"), esm_class, message=b"hello"), "e1", "same")


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    OCTETS | OCTETS.map(lambda octets: b"id:" + octets + b" stat:" + octets),
    st.dictionaries(st.sampled_from([0x1E, 0x427, 0x424, 1]), OCTETS),
    st.sampled_from(ID_FORMS),
    st.text(max_size=20),
)
def test_whatever_is_delivered_is_a_receipt_a_reply_or_unreadable(
    esm_class: int, coding: int, message: bytes, parameters: dict[int, bytes], id_form: str, digits: str
) -> None:
    with suppress(Unreadable):
        found = read(Delivered(Address(digits), Address(""), esm_class, coding, message, parameters), "e1", id_form)
        assert isinstance(found, (Receipt, Reply))
        assert len(found.event_id) <= 400


def test_a_delivery_is_read_from_the_wire() -> None:
    tlvs = parameter(0x001E, b"77\0") + parameter(0x0427, b"\2")
    found = pdu.delivered(delivery(b"id:77", esm_class=4, tlvs=tlvs))
    assert found == Delivered(
        Address("56912345678", 1, 1), Address("Shop", 5, 0), 4, 0, b"id:77", {0x1E: b"77\0", 0x427: b"\2"}
    )
    payload = pdu.delivered(delivery(b"", tlvs=parameter(0x0424, b"x" * 500)))
    assert (payload.message, payload.parameters) == (b"x" * 500, {})


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda octets: delivery(b"hello", tlvs=octets)))
def test_whatever_octets_come_are_a_delivery_or_broken(octets: bytes) -> None:
    with suppress(pdu.Broken):
        assert isinstance(pdu.delivered(octets), Delivered)


@given(st.data())
def test_a_delivery_that_is_cut_off_is_broken_or_shorter(data: st.DataObject) -> None:
    whole = delivery(b"hello")
    with pytest.raises(pdu.Broken):
        pdu.delivered(whole[: data.draw(st.integers(0, len(whole) - 1))])
