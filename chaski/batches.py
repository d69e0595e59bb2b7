"""Many messages in few calls: reads rows as they come, posts them in chunks, adds up what became of each.

Called by the client. Never holds more than one chunk; all chunks of one call belong to one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from chaski.errors import ChaskiError, InvalidMessage, field_errors
from chaski.identifiers import uuid7
from chaski.messages import BatchResult, Rejected
from chaski.wire import checked_key, encoded

#: The service takes up to 10,000 rows and 10 MB in one call; some room is left for the frame.
MAX_ROWS = 10_000
MAX_BYTES = 9_000_000


class Chunk:
    """The rows of one call, encoded, each with its place in the caller's iterable."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Any, bytes]] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, index: int, row: Any, body: bytes) -> None:
        self._rows.append((index, row, body))
        self._size += len(body) + 1

    def has_room_for(self, body: bytes, rows: int) -> bool:
        return not self._rows or (len(self._rows) < rows and self._size + len(body) < MAX_BYTES)

    def body(self, batch_id: str) -> bytes:
        return b'{"id":"%s","messages":[%s]}' % (
            batch_id.encode(),
            b",".join(body for _, _, body in self._rows),
        )

    def rejected(self, said: Mapping[str, Any]) -> Rejected:
        """The service counts from the start of the chunk, the caller from the start of the iterable."""
        index, row, _ = self._rows[int(said["index"])]
        return Rejected(index, field_errors(said.get("errors")), row)


class Batch:
    """One `send_many` while it runs. ``post`` sends one body and gives the service's answer. Not shared by
    threads.
    """

    def __init__(self, post: Callable[[bytes], Mapping[str, Any]], chunk_rows: int) -> None:
        self._id = str(uuid7())
        self._post = post
        self._chunk_rows = chunk_rows
        self._posted = False
        self._accepted = 0
        self._duplicates = 0
        self._rejected: list[Rejected] = []

    def send(self, rows: Iterable[Mapping[str, Any]]) -> BatchResult:
        """Send them all. A ``ChaskiError`` carries in ``partial`` what was done before it."""
        try:
            for chunk in self._chunks(rows):
                self._record(chunk, self._post(chunk.body(self._id)))
        except ChaskiError as error:
            error.partial = self._result()
            raise
        return self._result()

    def _chunks(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Chunk]:
        chunk = Chunk()
        for index, row in enumerate(rows):
            body = self._encoded(index, row)
            if body is None:
                continue
            if not chunk.has_room_for(body, self._chunk_rows):
                yield chunk
                chunk = Chunk()
            chunk.add(index, row, body)
        if len(chunk):
            yield chunk

    def _encoded(self, index: int, row: Mapping[str, Any]) -> bytes | None:
        """The row as JSON with id and key, or None when it is refused here, as by the service."""
        try:
            return encoded(with_identity(row))
        except InvalidMessage as error:
            self._rejected.append(Rejected(index, error.errors, row))
            return None

    def _record(self, chunk: Chunk, answer: Mapping[str, Any]) -> None:
        self._posted = True
        self._accepted += int(answer.get("accepted") or 0)
        self._duplicates += int(answer.get("duplicates") or 0)
        self._rejected += [chunk.rejected(said) for said in answer.get("rejected") or ()]

    def _result(self) -> BatchResult:
        rejected = tuple(sorted(self._rejected, key=lambda each: each.index))
        return BatchResult(self._id if self._posted else "", self._accepted, self._duplicates, rejected)


def with_identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with an ``id`` and a ``key``, minted where it has none. Raises ``InvalidMessage``."""
    if not isinstance(row, Mapping):
        raise InvalidMessage(errors={"row": [f"must be a dict of a message's fields, not {type(row).__name__}"]})
    fields = dict(row)
    fields["id"] = str(fields.get("id") or uuid7())
    key = fields.get("key")
    fields["key"] = fields["id"] if key is None else checked_key(key)
    return fields
