"""A way to PostgreSQL that can become a black hole: it takes connections and bytes, and no answer ever comes.

Used by the tests of this folder. Linux acknowledges every packet for us, so neither keepalives nor TCP timeouts notice.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any, Self

from django.db import connection


class BlackHole:
    """Listens on ``port`` of 127.0.0.1 and passes to the database of the tests until it swallows. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._swallowing = threading.Event()
        self._word = b""
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it; closing alone does not
            one.close()

    def swallow(self, from_word: bytes = b"") -> None:
        """Let no answer through any more: from now on, or (what was asked still arrives) from ``from_word`` on."""
        self._word = from_word
        if not from_word:
            self._swallowing.set()

    def heal(self) -> None:
        """Pass everything on again, on new connections: what was swallowed stays swallowed."""
        self._word = b""
        self._swallowing.clear()

    @property
    def swallowing(self) -> bool:
        """Whether answers are being swallowed."""
        return self._swallowing.is_set()

    def database_url(self, answer_seconds: float) -> str:
        """The database of this test behind the hole, for a process that waits so long for an answer."""
        settings: Mapping[str, Any] = connection.settings_dict
        return f"postgres://{settings['USER']}:{settings['PASSWORD']}@127.0.0.1:{self.port}/{settings['NAME']}?answer_seconds={answer_seconds}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = _database()
                self._open += [near, far]
                dead = threading.Event()  # a connection that lost one answer is of no more use
                for source, target, asks in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass, args=(source, target, asks, dead), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool, dead: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and self._word and self._word in data:
                    self._swallowing.set()
                    dead.set()
                    target.sendall(data)
                elif self._swallowing.is_set() or dead.is_set():
                    dead.set()
                else:
                    target.sendall(data)
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)


def _database() -> socket.socket:
    settings: Mapping[str, Any] = connection.settings_dict
    host, port = settings["HOST"] or settings["OPTIONS"].get("host", ""), settings["PORT"] or "5432"
    if host.startswith("/"):
        reached = socket.socket(socket.AF_UNIX)
        reached.connect(f"{host}/.s.PGSQL.{port}")
        return reached
    return socket.create_connection((host, int(port)))
