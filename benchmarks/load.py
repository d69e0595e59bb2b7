"""A load generator for prepared HTTP requests: blocking sockets in threads, kept open, every answer's status counted.

For requests that differ from each other, which `ab` cannot send. Its own cost per request is small (about 0.05 ms), and the
same for everything that is compared.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answers:
    """What came back. ``seconds`` from the first request to the last answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def request(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One POST as bytes."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def send(url: str, requests: Sequence[bytes], *, connections: int) -> Answers:
    """Send all ``requests`` as fast as ``connections`` can, one at a time on each."""
    return _together(url, requests, connections, lambda _: None)


def pace(url: str, requests: Sequence[bytes], *, connections: int, per_second: float) -> Answers:
    """Send ``requests`` evenly, ``per_second`` of them, whether or not earlier ones were answered."""
    begun = time.monotonic()

    def wait(number: int) -> None:
        time.sleep(max(0.0, begun + number / per_second - time.monotonic()))

    return _together(url, requests, connections, wait)


def _together(url: str, requests: Sequence[bytes], connections: int, wait: Callable[[int], None]) -> Answers:
    address = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
    waiting, answers, lock = iter(enumerate(requests)), Answers(), threading.Lock()

    def work() -> None:
        mine, latencies, wire = Counter[int](), list[float](), _Wire(address)
        while True:
            with lock:
                following = next(waiting, None)
            if following is None:
                break
            wait(following[0])
            started = time.monotonic()
            mine[wire.exchange(following[1])] += 1
            latencies.append(time.monotonic() - started)
        wire.close()
        with lock:
            answers.statuses += mine
            answers.latencies += latencies

    begun = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(work) for _ in range(connections)]:
            future.result()
    answers.seconds = time.monotonic() - begun
    return answers


class _Wire:
    """One connection, opened again when the server has closed it. Reads answers that have a Content-Length."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes) -> int:
        """The status of the answer. A request is never sent twice."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        data = b""
        while (head := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        lower = data[:head].lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(data) < head + 4 + length:
            data += self._more()
        if b"connection: close" in lower:
            self.close()
        return int(data[9:12])

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection before its answer was whole")
        return data

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
