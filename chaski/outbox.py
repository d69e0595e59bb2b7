"""A service made of a list: answers the client's requests in memory. Used by `chaski.testing` only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from chaski import acceptance
from chaski.errors import ChaskiError
from chaski.messages import Message
from chaski.vocabulary import FINAL, Status
from chaski.wire import Answer, Request

_FILTERS = {
    "status": "status",
    "channel": "channel",
    "to": "to",
    "reference": "reference",
    "batch": "batch_id",
}
_DONE = FINAL | {Status.SENT, Status.DELIVERED}
_REDELIVERABLE = frozenset({Status.FAILED, Status.UNDELIVERED, Status.EXPIRED})


class Outbox(list[Message]):
    """Every accepted message, oldest first, with all it was sent with (``.channel``, ``.to``, ``.text``,
    ``.key`` ...).

    What the service would refuse at a glance raises the same errors here, and the same key twice gives one
    message. Messages stay ``queued``; to let one end, call ``settle``, or set ``ends_as`` to the status that
    they get as soon as they are looked at by `get` or `wait` (``delivered`` unless changed; None: they stay
    queued). Safe to use from many threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends_as: Status | str | None = Status.DELIVERED
        self._failures: list[ChaskiError] = []
        self._seen: dict[str, tuple[dict[str, Any], str]] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all messages and keys."""
        super().clear()
        self._seen.clear()

    def fail_with(self, error: ChaskiError, times: int = 1) -> None:
        """Let the next ``times`` calls raise ``error``: how does your code bear
        ``chaski.Unavailable("down")``?
        """
        self._failures += [error] * times

    def settle(self, id: str, status: Status | str) -> Message:
        """Give a message a status; it is final afterwards when that status is one that ends things."""
        known = Status(status)
        done = known in _DONE
        at = datetime.now(timezone.utc)
        changed = replace(self._find(id), status=known, final=done, updated_at=at, finished_at=at if done else None)
        self[self._place(id)] = changed
        return changed

    def answer(self, request: Request) -> Answer:
        """What a service would answer. Called by the client in place of the network."""
        with self._lock:
            if self._failures:
                raise self._failures.pop(0)
            try:
                return self._routed(request)
            except acceptance.Refused as refused:
                return refused.answer()

    def _routed(self, request: Request) -> Answer:
        parts = request.path.strip("/").split("/")
        if parts == ["batches"]:
            return self._batch(json.loads(request.body or b"{}"))
        if parts == ["files"]:
            return _file(request)
        if parts == ["messages"] and request.method == "POST":
            return self._accepted(json.loads(request.body or b"{}"), request.key)
        if parts == ["messages"]:
            return _page(self._listed(dict(request.query)))
        return self._one(unquote(parts[1]), parts[2] if len(parts) > 2 else "")

    def _accepted(self, fields: dict[str, Any], key: str) -> Answer:
        new, message = self._keep(fields, key)
        return Answer(202 if new else 200, _json(message))

    def _keep(self, fields: dict[str, Any], key: str, batch_id: str = "") -> tuple[bool, Message]:
        """Whether it is new, and the message that stands for this key. Raises ``Refused``."""
        acceptance.check(fields)
        content = {name: value for name, value in fields.items() if name not in ("id", "key")}
        if key in self._seen:
            first, id = self._seen[key]
            if first != content:
                raise acceptance.Refused(422, "idempotency_conflict", f"the key {key} was used for another message")
            return False, self._find(id)
        message = replace(_queued(fields), key=key, batch_id=batch_id)
        self.append(message)
        self._seen[key] = (content, message.id)
        return True, message

    def _batch(self, body: dict[str, Any]) -> Answer:
        accepted, rejected = 0, []
        for index, row in enumerate(body["messages"]):
            try:
                accepted += self._keep(row, row["key"], body["id"])[0]
            except acceptance.Refused as refused:
                rejected.append({"index": index, "errors": refused.errors or {"key": [refused.detail]}})
        duplicates = len(body["messages"]) - accepted - len(rejected)
        said = {"id": body["id"], "accepted": accepted, "duplicates": duplicates, "rejected": rejected}
        return Answer(202, json.dumps(said).encode())

    def _one(self, id: str, verb: str) -> Answer:
        message = self._find(id)
        if verb == "cancel":
            return self._moved(message, message.status == Status.QUEUED, Status.CANCELED, "not_cancelable")
        if verb == "redeliver":
            return self._moved(message, message.status in _REDELIVERABLE, Status.QUEUED, "not_redeliverable")
        if self.ends_as is not None and message.status == Status.QUEUED and not _lies_ahead(message.send_at):
            message = self.settle(id, self.ends_as)
        return Answer(200, _json(message))

    def _moved(self, message: Message, allowed: bool, status: Status, code: str) -> Answer:  # noqa: FBT001
        if not allowed:
            raise acceptance.Refused(409, code, f"message {message.id} is {message.status}")
        return Answer(200, _json(self.settle(message.id, status)))

    def _listed(self, query: Mapping[str, str]) -> Iterable[Message]:
        wanted = {_FILTERS[name]: value for name, value in query.items() if name in _FILTERS}
        for message in reversed(self):
            fits = all(str(getattr(message, name)) == value for name, value in wanted.items())
            if fits and ("tag" not in query or query["tag"] in message.tags):
                yield message

    def _find(self, id: str) -> Message:
        return self[self._place(id)]

    def _place(self, id: str) -> int:
        for place, message in enumerate(self):
            if message.id == id:
                return place
        raise acceptance.Refused(404, "not_found", f"there is no message {id} in the outbox")


def _file(request: Request) -> Answer:
    """Kept nowhere: what a test wants to know of an attachment is the id, which is the same for the same bytes."""
    content, name = request.body or b"", dict(request.query)["name"]
    said = {
        "id": str(uuid5(NAMESPACE_URL, f"{name}:{sha256(content).hexdigest()}")),
        "sha256": sha256(content).hexdigest(),
        "size": len(content),
        "name": name,
        "content_type": request.content_type,
    }
    return Answer(201, json.dumps(said).encode())


def _queued(fields: Mapping[str, Any]) -> Message:
    now = datetime.now(timezone.utc).isoformat()
    return Message.from_json({**fields, "status": "queued", "created_at": now, "updated_at": now})


def _lies_ahead(moment: datetime | None) -> bool:
    return moment is not None and moment > datetime.now(timezone.utc)


def _page(messages: Iterable[Message]) -> Answer:
    return Answer(200, b'{"results":[%s],"next":null}' % b",".join(_json(message) for message in messages))


def _json(message: Message) -> bytes:
    return json.dumps(vars(message), default=_plain).encode()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)
