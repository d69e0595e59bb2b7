"""What an SMSC delivers: receipts, in their text and in their parameters, and what people write.

Used by the SMPP provider. The text of a receipt is SMPP 3.4, appendix B; what its parts hold differs from vendor to vendor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from channels import smpp_text
from channels.base import DETAIL_LIMIT, Receipt, ReceiptKind, Reply, Unreadable
from channels.smpp_gateway.exchange import Address, Delivered
from channels.smpp_gateway.pdu import WITH_HEADER

#: esm_class, 5.2.12: what kind of message a delivery is.
_KIND = 0x3C
_WRITTEN, _RECEIPT, _ACKNOWLEDGED, _CONVERSATION, _INTERMEDIATE = 0x00, 0x04, 0x08, 0x10, 0x20
#: 5.3.2.12 and 5.3.2.35
_MESSAGE_ID, _MESSAGE_STATE = 0x001E, 0x0427
_INTERNATIONAL = 1
_PHONE = re.compile(r"[0-9]{9,15}")
_ID_LIMIT = 100

_FIELDS = {
    "id": re.compile(r"\bid:([^\s]{1,100})", re.I),
    "state": re.compile(r"\bstat:\s?([A-Za-z]{1,16})", re.I),
    "error": re.compile(r"\berr:\s?([0-9A-Za-z]{1,16})", re.I),
}
_BASES = {"hex": (16, re.compile(r"[0-9A-Fa-f]{1,64}")), "decimal": (10, re.compile(r"[0-9]{1,64}"))}
#: How the id of an answer is written, and that of a receipt.
ID_FORMS = ("same", *(f"{answer}/{receipt}" for answer in _BASES for receipt in _BASES))


class State(IntEnum):
    """``message_state``, 5.2.28."""

    ENROUTE = 1
    DELIVERED = 2
    EXPIRED = 3
    DELETED = 4
    UNDELIVERABLE = 5
    ACCEPTED = 6
    UNKNOWN = 7
    REJECTED = 8


@dataclass(frozen=True, slots=True)
class _Meaning:
    """For a message, and for people."""

    kind: ReceiptKind
    words: str


_MEANINGS = {
    State.ENROUTE: _Meaning(ReceiptKind.SENT, "on its way"),
    State.DELIVERED: _Meaning(ReceiptKind.DELIVERED, "delivered"),
    State.EXPIRED: _Meaning(
        ReceiptKind.UNDELIVERED, "the network tried for as long as it may; the phone is off or out of reach"
    ),
    State.DELETED: _Meaning(ReceiptKind.UNDELIVERED, "the message was deleted at the SMSC"),
    State.UNDELIVERABLE: _Meaning(ReceiptKind.UNDELIVERED, "the network cannot deliver it"),
    State.ACCEPTED: _Meaning(ReceiptKind.SENT, "accepted"),
    State.UNKNOWN: _Meaning(ReceiptKind.INFO, "the SMSC does not know what became of it"),
    State.REJECTED: _Meaning(ReceiptKind.UNDELIVERED, "the network rejected it"),
}
#: The words of receipts, appendix B, and those that vendors write besides.
_STATES = {
    "ENROUTE": State.ENROUTE,
    "DELIVRD": State.DELIVERED,
    "DELIVERED": State.DELIVERED,
    "EXPIRED": State.EXPIRED,
    "DELETED": State.DELETED,
    "UNDELIV": State.UNDELIVERABLE,
    "FAILED": State.UNDELIVERABLE,
    "ACCEPTD": State.ACCEPTED,
    "UNKNOWN": State.UNKNOWN,
    "REJECTD": State.REJECTED,
}


def read(delivered: Delivered, event: str, id_form: str) -> Receipt | Reply:
    """What the SMSC delivered. ``event`` is the gateway's name for it. Raises ``Unreadable``."""
    kind = delivered.esm_class & _KIND
    if kind in (_RECEIPT, _INTERMEDIATE) or {_MESSAGE_ID, _MESSAGE_STATE} <= set(delivered.parameters):
        return _receipt(delivered, id_form)
    # By its text alone nothing is a receipt: that anybody can write.
    if kind in (_ACKNOWLEDGED, _CONVERSATION):
        raise Unreadable("an acknowledgement of a phone or its owner, which says nothing of a message of ours")
    return Reply(f"reply:{event}", _sender(delivered.source), _text(delivered))


def answered_id(found: str, id_form: str) -> str:
    """The id of a ``submit_sm_resp`` in the one form in which both are kept."""
    return _in_one_form(found, id_form.partition("/")[0])


def _receipt(delivered: Delivered, id_form: str) -> Receipt:
    """No time: the text has that of the SMSC's own zone, which it does not name."""
    # Digits and Latin letters, in whatever alphabet: some SMSCs write ids with _, which is another character in GSM's.
    coding = delivered.data_coding if delivered.data_coding == smpp_text.UCS2 else smpp_text.LATIN_1
    text = smpp_text.decode(coding, _body(delivered))
    told = {name: match[1] for name, field in _FIELDS.items() if (match := field.search(text))}
    found = _parameter(delivered.parameters, _MESSAGE_ID) or told.get("id", "")
    state = _state(delivered.parameters, told)
    if not found or not state:
        raise Unreadable("a receipt names a message and its state")
    receipt_id = _in_one_form(found, id_form.rpartition("/")[2])
    meaning = _MEANINGS.get(_STATES.get(state, State.UNKNOWN))
    assert meaning is not None
    failed = meaning.kind is ReceiptKind.UNDELIVERED
    error = told.get("error", "").lstrip("0") and told["error"]
    return Receipt(
        event_id=f"{receipt_id}:{state}:{told.get('error', '')}",
        kind=meaning.kind,
        provider_message_id=receipt_id,
        code=(error or state) if failed else "",
        detail=f"{meaning.words} ({state}{f', error {error}' if error else ''})"[:DETAIL_LIMIT],
    )


def _state(parameters: Mapping[int, bytes], told: Mapping[str, str]) -> str:
    """The word of a state; empty where there is none."""
    given = parameters.get(_MESSAGE_STATE, b"")
    if given and given[0] in list(State):
        return next(word for word, state in _STATES.items() if state == given[0])
    return told.get("state", "").upper()


def _parameter(parameters: Mapping[int, bytes], tag: int) -> str:
    return parameters.get(tag, b"").partition(b"\0")[0].decode("latin-1").strip()[:_ID_LIMIT]


def _in_one_form(found: str, form: str) -> str:
    """A number in decimal without zeros before it, where ``form`` says how it is written and it is so written."""
    if form not in _BASES:
        return found
    base, digits = _BASES[form]
    return str(int(found, base)) if digits.fullmatch(found) else found


def _sender(source: Address) -> str:
    """A person's number in E.164; a short code or a name as it is."""
    international = source.ton == _INTERNATIONAL or (source.ton == 0 and _PHONE.fullmatch(source.digits))
    return f"+{source.digits.removeprefix('+')}" if international and source.digits else source.digits


def _text(delivered: Delivered) -> str:
    """A long one comes in parts, each a reply of its own."""
    return smpp_text.decode(delivered.data_coding, _body(delivered))


def _body(delivered: Delivered) -> bytes:
    if delivered.esm_class & WITH_HEADER:
        return smpp_text.without_header(delivered.message)
    return delivered.message
