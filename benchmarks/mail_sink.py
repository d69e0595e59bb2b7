"""The mail server's side of a benchmark: aiosmtpd, which nobody here wrote. `python -m benchmarks.mail_sink FILE`.

Each accepted mail becomes a line of FILE: the monotonic time and the subject.
"""

from __future__ import annotations

import asyncio
import sys
import time
from email.parser import BytesHeaderParser
from email.policy import default
from typing import IO

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session


class Keep:
    """Remembers and accepts everything."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._parser = BytesHeaderParser(policy=default)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd's own name for it."""
        assert isinstance(envelope.content, bytes)
        subject = self._parser.parsebytes(envelope.content)["Subject"]
        self._file.write(f"{time.monotonic()} {subject}\n")
        self._file.flush()
        return "250 OK"


async def serve(path: str) -> None:
    """Listen on a free port of this machine, say which on stdout, stay."""
    with open(path, "a") as file:  # noqa: ASYNC230 - before anything is served
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Keep(file), loop=loop), "127.0.0.1", 0, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
