"""A real local HTTP server that answers as scripted and keeps what it was asked; for the client's tests."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import chaski


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


@dataclass
class Reply:
    """One scripted answer. ``cut`` resets the connection in the middle of it, ``delay`` is in seconds."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    delay: float = 0


class Service(ThreadingHTTPServer):
    """Answers with ``replies`` in order, then with ``otherwise(asked)``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[Asked] = []
        self.connections = 0
        self.replies: list[Reply] = []
        self.otherwise: Callable[[Asked], Reply] = echoed
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a test breaks are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def answer(self) -> None:
        asked = self.read()
        with self.server.lock:
            self.server.asked.append(asked)
            reply = self.server.replies.pop(0) if self.server.replies else self.server.otherwise(asked)
        time.sleep(reply.delay)
        self.write(reply)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server looks for

    def read(self) -> Asked:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Asked(self.command, parts.path, parse_qs(parts.query), headers, body)

    def write(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.cut:
            self.wfile.write(body[: len(body) // 2])
            self.reset()
        else:
            self.wfile.write(body)

    def reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silence."""


def message(**fields: Any) -> dict[str, Any]:
    return {"id": "0192f0c1-2345-7abc-8def-0123456789ab", "status": "queued", **fields}


def echoed(asked: Asked) -> Reply:
    """A service that takes everything."""
    if asked.path.endswith("/batches"):
        rows = asked.json["messages"]
        said = {"id": asked.json["id"], "accepted": len(rows), "duplicates": 0, "rejected": []}
        return Reply(202, said)
    return Reply(202, message(**(asked.json if asked.method == "POST" and asked.body else {})))


def problem(status: int, code: str, **more: Any) -> Reply:
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "request_id": "req-7"}
    return Reply(status, {**body, "detail": f"text of {code}", **more})


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with contextlib.closing(server.socket):
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(service: Service) -> Iterator[chaski.Client]:
    with chaski.Client(service.url, "ck_test_abc", timeout=(2, 5), deadline=20) as made:
        yield made


@pytest.fixture
def says() -> type[Reply]:
    """The class of scripted answers, since test modules do not import each other."""
    return Reply


@pytest.fixture
def refuses() -> Callable[..., Reply]:
    return problem
