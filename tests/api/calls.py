"""Calls of the API in this process, rows in the states that tests need, and what the tables hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import connection
from django.test import Client

from chaski.vocabulary import FINAL, Status
from deliveries import lifecycle
from deliveries.lifecycle import Move
from tests.factories import Caller

SMS = {"channel": "sms", "to": "+56 9 1234 5678", "text": "Tu pedido va en camino"}
LINES = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Api:
    """The API as one service calls it. A 500 is an answer here, as it is for a client."""

    caller: Caller
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def post(self, path: str, body: Any = None, *, key: str = "", raw: bytes | None = None, **options: Any) -> Any:
        """POST ``body`` as JSON, or ``raw`` as it is."""
        headers = {**self.caller.headers, **({"Idempotency-Key": key} if key else {}), **options.pop("headers", {})}
        data = json.dumps(body).encode() if raw is None else raw
        options.setdefault("content_type", "application/json")
        return self.client.post(f"/api/v1/{path}", data, headers=headers, **options)

    def get(self, path: str, **query: str) -> Any:
        return self.client.get(f"/api/v1/{path}", query, headers=self.caller.headers)

    def delete(self, path: str, **query: str) -> Any:
        return self.client.delete(f"/api/v1/{path}", query_params=query, headers=self.caller.headers)

    def send(self, **fields: Any) -> dict[str, Any]:
        """A message that must be accepted, as the API shows it."""
        answer = self.post("messages", {**SMS, **fields})
        assert answer.status_code == 202, answer.content
        body: dict[str, Any] = answer.json()
        return body


def move(message_id: str, *path: Status, **fields: Any) -> None:
    """Move a message as a worker would, and take it out of the queue where it is done."""
    with connection.cursor() as cursor:
        assert lifecycle.apply(cursor, [Move(UUID(message_id), path, **fields)])
        if path[-1] in FINAL or path[-1] in (Status.SENT, Status.DELIVERED):
            cursor.execute("DELETE FROM pending WHERE message_id = %s", [message_id])


def lease(message_id: str) -> None:
    """Put a message under a lease, as a claim does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pending SET lease_until = chaski_now() + interval '1 minute', lease_token = gen_random_uuid()"
            " WHERE message_id = %s",
            [message_id],
        )


def rows() -> dict[str, int]:
    """How many rows each table of the app has."""
    models = apps.get_app_config("deliveries").get_models()
    return {model._meta.db_table: model._default_manager.count() for model in models}


@contextmanager
def nothing_stored() -> Iterator[None]:
    """Not a row more or less in any table."""
    before = rows()
    yield
    assert rows() == before


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The members of a problem, which must be whole (RFC 9457) and of this status and code."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    found: dict[str, Any] = answer.json()
    assert set(found) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
    assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:chaski:problem:{code}")
    assert found["title"]
    assert found["detail"]
    assert found["request_id"] == answer["X-Request-Id"]
    assert all(isinstance(reasons, list) for reasons in found["errors"].values())
    return found
