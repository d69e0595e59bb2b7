"""What a server sends over HTTP/2, cut into frames, and its GOAWAYs taken out. Called by ``channels.http2_wire``.

The form of a frame: https://www.rfc-editor.org/rfc/rfc9113#section-4.1 and, for a GOAWAY, #section-6.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from channels.http_wire import NotHttp

_HEAD, _LIMIT, _GOAWAY, _ID_BITS = 9, 16_384, 7, 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Goaway:
    """A server's good-bye: the ``last`` request that it may have acted on, and why it goes."""

    last: int
    code: int


class Frames:
    """Parts the GOAWAY frames of one connection from all others.

    To h2 a GOAWAY is the end, so that answers still to come would be errors. The server may well give them: it names the
    last request that it answers, and may lower that by another GOAWAY (RFC 9113, section 6.8).
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def of(self, data: bytes) -> Iterator[bytes | Goaway]:
        """What ``data`` completes, in its order: a GOAWAY, or a frame for h2. Raises ``NotHttp`` behind what came before."""
        self._held += data
        while len(self._held) >= _HEAD:
            length = int.from_bytes(self._held[:3])
            if length > _LIMIT:
                raise NotHttp("a frame that is too long")
            if len(self._held) < _HEAD + length:
                return
            frame = bytes(self._held[: _HEAD + length])
            del self._held[: _HEAD + length]
            yield _goaway(frame) or frame


def _goaway(frame: bytes) -> Goaway | None:
    """None for all other frames, and for one that is none whatever it says."""
    last, code = frame[_HEAD : _HEAD + 4], frame[_HEAD + 4 : _HEAD + 8]
    whole = len(code) == 4 and not any(frame[5:_HEAD])
    return Goaway(int.from_bytes(last) & _ID_BITS, int.from_bytes(code)) if frame[3] == _GOAWAY and whole else None
