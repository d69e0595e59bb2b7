"""The mail server's side of a benchmark. `python -m benchmarks.mail_sink FILE`.

It says yes to everything and takes an envelope's commands at once (RFC 2920), as mail servers do. Each accepted mail becomes
a line of FILE: the monotonic time and the subject. aiosmtpd in its place used most of a core and slowed whoever sent.
"""

from __future__ import annotations

import asyncio
import sys
import time
from email.header import decode_header, make_header
from typing import IO, cast

import uvloop

GREETING = b"220 sink.example ESMTP\r\n"
EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n"
REPLIES = {b"EHLO": EHLO, b"DATA": b"354 Go ahead\r\n", b"QUIT": b"221 Bye\r\n"}
END = b"\r\n.\r\n"
SUBJECT = b"\r\nSubject: "


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._data = b""
        self._in_mail = False
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's transports derive from nothing
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        """Answer what is whole, in one go."""
        self._data += data
        replies = []
        while reply := self._mail() if self._in_mail else self._command():
            replies.append(reply)
        if replies:
            self._transport.write(b"".join(replies))

    def _command(self) -> bytes:
        line, end, rest = self._data.partition(b"\r\n")
        if not end:
            return b""
        self._data = rest
        verb = line[:4].upper()
        self._in_mail = verb == b"DATA"
        return REPLIES.get(verb, b"250 OK\r\n")

    def _mail(self) -> bytes:
        mail, end, rest = self._data.partition(END)
        if not end:
            return b""
        self._data, self._in_mail = rest, False
        subject = mail[mail.index(SUBJECT) + len(SUBJECT) :].partition(b"\r\n")[0].decode()
        self._file.write(f"{time.monotonic()} {make_header(decode_header(subject))}\n")
        self._file.flush()
        return b"250 OK\r\n"


async def serve(path: str) -> None:
    """Listen on a free port of this machine, say which on stdout, stay."""
    with open(path, "a") as file:  # noqa: ASYNC230 - before anything is served
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(file), "127.0.0.1", 0, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
