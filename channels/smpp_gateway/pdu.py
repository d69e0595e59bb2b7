"""SMPP 3.4 on the wire: the dozen PDUs that a transceiver needs. https://smpp.org/SMPP_v3_4_Issue1_2.pdf, chapters 4 and 5

Written and read by ``bind``. Our own, for what there is acknowledges deliveries whether Chaski has them or not (smpp34,
aiosmpplib), or blocks (smpplib).
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import IntEnum

from channels.smpp_gateway.exchange import Address, Delivered, Submission

RESPONSE = 0x8000_0000
LAST_SEQUENCE = 0x7FFF_FFFF
#: Far more than a message with a payload of 64 kB and all its parameters.
LENGTH_LIMIT = 128 * 1024
MESSAGE_PAYLOAD = 0x0424
#: esm_class: the message begins with a user data header, as each part of a long one does.
WITH_HEADER = 0x40
_VERSION = 0x34
_HEAD = struct.Struct(">LLLL")
_PARAMETER = struct.Struct(">HH")


class Command(IntEnum):
    """The requests; the answer to each is that with ``RESPONSE``."""

    GENERIC_NACK = 0x8000_0000
    SUBMIT_SM = 0x04
    DELIVER_SM = 0x05
    UNBIND = 0x06
    BIND_TRANSCEIVER = 0x09
    ENQUIRE_LINK = 0x15
    ALERT_NOTIFICATION = 0x0102


class Broken(ValueError):
    """Octets that are no PDU, or no body of its kind."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """One PDU, its body as it is on the wire."""

    command: int
    sequence: int
    status: int = 0
    body: bytes = b""

    @property
    def is_response(self) -> bool:
        """Does it answer one of ours?"""
        return bool(self.command & RESPONSE)

    def written(self) -> bytes:
        """As octets."""
        return _HEAD.pack(_HEAD.size + len(self.body), self.command, self.status, self.sequence) + self.body


async def read(reader: asyncio.StreamReader) -> Pdu:
    """The next one. Raises ``Broken``, ``asyncio.IncompleteReadError`` at the end, ``OSError``."""
    length, command, status, sequence = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if not _HEAD.size <= length <= LENGTH_LIMIT:
        raise Broken(f"a PDU of {length} octets")
    return Pdu(command, sequence, status, await reader.readexactly(length - _HEAD.size))


def bind_body(system_id: str, password: str, system_type: str) -> bytes:
    """Of ``bind_transceiver``: 4.1.5."""
    return _text(system_id) + _text(password) + _text(system_type) + bytes((_VERSION, 0, 0)) + _text("")


def submit_body(submission: Submission, number: int) -> bytes:
    """Of the ``submit_sm`` of part ``number``, from 0: 4.4.1. Only the last part asks for a receipt, whatever becomes of it."""
    part, last = submission.parts[number], number == len(submission.parts) - 1
    esm_class = WITH_HEADER if len(submission.parts) > 1 else 0
    return b"".join(
        (
            _text(""),  # service_type: the SMSC's default
            _address(submission.source),
            _address(submission.destination),
            bytes((esm_class, 0, 0)),  # protocol_id, priority_flag
            _text(""),  # schedule_delivery_time: at once
            _text(submission.validity),
            bytes((int(last), 0, submission.data_coding, 0, len(part))),
            part,
        )
    )


def delivered(body: bytes) -> Delivered:
    """A ``deliver_sm``: 4.6.1. Raises ``Broken``."""
    rest = _Rest(body)
    rest.text()  # service_type
    source, destination = rest.address(), rest.address()
    esm_class = rest.octet()
    rest.octets(2)  # protocol_id, priority_flag
    rest.text()  # schedule_delivery_time
    rest.text()  # validity_period
    rest.octets(2)  # registered_delivery, replace_if_present_flag
    data_coding = rest.octet()
    rest.octet()  # sm_default_msg_id
    message = rest.octets(rest.octet())
    parameters = rest.parameters()
    payload = parameters.pop(MESSAGE_PAYLOAD, b"")
    return Delivered(source, destination, esm_class, data_coding, message or payload, parameters)


def message_id(body: bytes) -> str:
    """Of ``submit_sm_resp``: 4.4.2. Empty where there is none."""
    return body.partition(b"\0")[0][:65].decode("latin-1").strip()


class _Rest:
    """What is left of a body."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)

    def octets(self, count: int) -> bytes:
        if len(self._body) < count:
            raise Broken("a body that ends too early")
        taken, self._body = self._body[:count], self._body[count:]
        return bytes(taken)

    def octet(self) -> int:
        return self.octets(1)[0]

    def text(self) -> str:
        """A C-octet string."""
        found, end, _ = bytes(self._body).partition(b"\0")
        if not end:
            raise Broken("a text without an end")
        self.octets(len(found) + 1)
        return found.decode("latin-1")

    def address(self) -> Address:
        ton, npi = self.octet(), self.octet()
        return Address(self.text()[:20], ton, npi)

    def parameters(self) -> dict[int, bytes]:
        """The optional parameters; what follows the last whole one is ignored."""
        found = dict[int, bytes]()
        while len(self._body) >= _PARAMETER.size:
            tag, length = _PARAMETER.unpack(self.octets(_PARAMETER.size))
            found[tag] = self.octets(min(length, len(self._body)))
        return found


def _text(text: str) -> bytes:
    return text.encode("latin-1", errors="replace").replace(b"\0", b"") + b"\0"


def _address(address: Address) -> bytes:
    return bytes((address.ton, address.npi)) + _text(address.digits)
