"""The provider's side of a benchmark: an HTTP server that answers as Twilio does, after a delay, and remembers whom it served.

Started as a process of its own by ``benchmarks.sink_process``: `python -m benchmarks.sink`. It is written by hand on
asyncio's Protocol because it must cost far less than whoever calls it; `python -m benchmarks sink` shows its ceiling.

``POST /d50/...`` is answered after 50 ms, ``/d0/...`` at once, ``/dead/...`` never. The identity of a call is what its form
carries as ``message=...`` in the URL for status callbacks. ``GET /control``, ``/control/ids``, ``/control/reset``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import cast

import uvloop

_MARK = b"message%3D"
_LENGTH = b"content-length:"
#: The last header is for clients that speak HTTP/1.0, such as ApacheBench.
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
#: Of the timeline, in seconds.
STEP = 0.1


@dataclass(slots=True)
class Memory:
    """What was accepted since the last reset. Times are seconds of the monotonic clock."""

    served: Counter[bytes] = field(default_factory=Counter)
    calls: int = 0
    nameless: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    timeline: Counter[int] = field(default_factory=Counter)

    def accept(self, body: bytes) -> None:
        """Remember one call. It counts from when it is read, not from when it is answered."""
        now = time.monotonic()
        self.calls += 1
        self.first_at = self.first_at or now
        self.last_at = now
        self.timeline[int(now / STEP)] += 1
        at = body.find(_MARK)
        if at < 0:
            self.nameless += 1
            return
        end = body.find(b"&", at)
        self.served[body[at + len(_MARK) : end if end > 0 else len(body)]] += 1

    def summary(self) -> dict[str, object]:
        """What the control path tells."""
        first = int(self.first_at / STEP)
        return {
            "calls": self.calls,
            "distinct": len(self.served),
            "duplicates": sum(times - 1 for times in self.served.values()),
            "nameless": self.nameless,
            "seconds": self.last_at - self.first_at,
            "timeline": [self.timeline[step] for step in range(first, int(self.last_at / STEP) + 1)] if first else [],
            "cpu_seconds": time.process_time(),
        }


_memory = Memory()
_numbers = count(1)


def _answer(status: bytes, kind: bytes, body: bytes) -> bytes:
    return _HEAD % (status, kind, len(body), body)


def _created() -> bytes:
    body = b'{"sid":"SM%032x","status":"queued","error_code":null,"error_message":null}' % next(_numbers)
    return _answer(b"201 CREATED", b"application/json", body)


class Connection(asyncio.Protocol):
    """One kept-open connection: any number of requests, one after the other or pipelined."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        data = self._waiting + data if self._waiting else data
        while (head := data.find(b"\r\n\r\n")) >= 0:
            end = head + 4 + _length(data[:head])
            if len(data) < end:
                break
            self._serve(data[: data.index(b"\r\n")], data[head + 4 : end])
            data = data[end:]
        self._waiting = data

    def _serve(self, line: bytes, body: bytes) -> None:
        path = line.split(b" ", 2)[1]
        if path.startswith(b"/control"):
            self._write(_control(path))
            return
        where = path[1 : path.index(b"/", 1)] if b"/" in path[1:] else path[1:]
        if where == b"dead":
            return
        _memory.accept(body)
        delay = int(where[1:]) / 1000
        if delay:
            asyncio.get_running_loop().call_later(delay, self._write, _created())
        else:
            self._write(_created())

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(_LENGTH)
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at)
    return int(lower[at + len(_LENGTH) : end if end > 0 else len(lower)])


def _control(path: bytes) -> bytes:
    global _memory
    if path == b"/control/ids":
        return _answer(b"200 OK", b"text/plain", b"\n".join(_memory.served))
    if path == b"/control/reset":
        _memory = Memory()
    return _answer(b"200 OK", b"application/json", json.dumps(_memory.summary()).encode())


async def serve() -> None:
    """Listen on a free port of this machine, say which on stdout, stay."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
