"""The client: every call of the service as a method. Made by other applications, and by the functions of
`chaski`.

Standard library only until a client is made; then urllib3, through `chaski.transport`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from chaski import configuration
from chaski.batches import MAX_ROWS, Batch, with_identity
from chaski.errors import ChaskiError, ConfigurationError, Conflict, Timeout, Unavailable, error_for
from chaski.files import file_of, upload_request
from chaski.messages import BatchResult, File, Message
from chaski.vocabulary import Status
from chaski.wire import Answer, Request, encoded, instant

if TYPE_CHECKING:
    import os

    from chaski.transport import Transport

__version__ = "0.1.0"

#: What also counts as having reached a status: it lies further on the same way.
_BEYOND = {Status.SENT: {Status.DELIVERED, Status.READ}, Status.DELIVERED: {Status.READ}}
_FIRST_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 1.0


class Client:
    """Calls one Chaski service with one API key. Make one and keep it: it holds open connections.

    Safe to share between threads, and safe to carry over a fork. Every method raises a ``ChaskiError`` and
    nothing else for what goes wrong between here and the service. Calls are repeated by themselves on network
    errors and on 429, 502, 503 and 504, always with the id and key minted before the first attempt, so
    nothing is sent twice.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | tuple[float, float] = (2, 10),
        retries: int = 3,
        deadline: float = 30,
    ) -> None:
        """``timeout`` is (connect, read) in seconds for each attempt, ``retries`` how many may follow the
        first one, and ``deadline`` the seconds of one call with all its attempts and pauses. URL and key are
        taken from Django's settings or the environment where they are not given. Raises
        ``ConfigurationError``.
        """
        self.url, key = configuration.connection(url, api_key)
        self._deadline = deadline
        pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self._transport = _transport(self.url, key, pair, retries)

    def __repr__(self) -> str:
        return f"<chaski.Client {self.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        self._transport.close()

    def send(
        self,
        channel: str,
        to: str,
        *,
        text: str | None = None,
        subject: str | None = None,
        html: str | None = None,
        template: str | None = None,
        context: Mapping[str, Any] | None = None,
        language: str | None = None,
        attachments: Sequence[Any] = (),
        account: str | None = None,
        key: str | None = None,
        send_at: datetime | str | None = None,
        expires_at: datetime | str | None = None,
        priority: str = "normal",
        ordering_key: str | None = None,
        reference: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Message:
        """Have one message kept and delivered; returns as soon as the service has kept it.

        ``key`` is yours: the same key with the same content gives the first message back for at least 72
        hours, with another content it raises ``IdempotencyConflict``. Give one that comes from your own data
        (``f"shipped:{order.pk}"``) so that repeating your own code sends nothing twice; without it one is
        minted for this call. ``send_at`` and ``expires_at`` are aware datetimes or ISO 8601 text.
        ``priority`` is ``urgent``, ``normal`` or ``bulk``. ``attachments`` are what `upload` gave, ids of files, or
        dicts with a public ``url`` and its ``content_type``. Raises ``InvalidMessage`` with the fields in
        ``.errors``.
        """
        fields = {
            "channel": channel,
            "to": to,
            "text": text,
            "subject": subject,
            "html": html,
            "template": template,
            "context": context,
            "language": language,
            "attachments": list(attachments),
            "account": account,
            "key": key,
            "send_at": send_at,
            "expires_at": expires_at,
            "priority": priority,
            "ordering_key": ordering_key,
            "reference": reference,
            "tags": [tags] if isinstance(tags, str) else [*tags],
            "metadata": metadata,
            "options": options,
        }
        identified = with_identity(fields)
        minted: str = identified.pop("key")
        message = self._message(Request("POST", "/messages", body=encoded(identified), key=minted))
        return replace(message, key=minted)

    def upload(
        self, content: bytes | os.PathLike[str] | IO[bytes], name: str | None = None, content_type: str | None = None
    ) -> File:
        """Have a file kept, for the ``attachments`` of any number of messages; at most 25 MB.

        ``content`` is the file's bytes, its path, or a file opened for reading bytes. ``name`` is the one that people
        see, the path's own unless given, and ``content_type`` is guessed from it. The same file again has the same
        id. Raises ``InvalidMessage`` with what is wrong in ``.errors``, ``OSError`` for an unreadable path.
        """
        request = upload_request(content, name, content_type)
        return file_of(self._call(request), self._named(request))

    def send_many(self, messages: Iterable[Mapping[str, Any]], chunk: int = 1000) -> BatchResult:
        """Have many messages kept, as one batch. Each is a dict with the names that `send` takes (and maybe
        an ``id``).

        Reads any iterable as it goes and holds ``chunk`` rows at a time (at most 10,000). Good rows are kept
        when others are refused: see ``rejected``, whose ``index`` counts from 0 over all rows. A
        ``ChaskiError`` carries in ``partial`` what was done before it; with your own ``key`` in each row the
        whole call can be repeated safely.
        """
        if not 1 <= chunk <= MAX_ROWS:
            raise ValueError(f"chunk must be from 1 to {MAX_ROWS}, not {chunk}")
        return Batch(self._post_batch, chunk).send(messages)

    def get(self, id: str | UUID) -> Message:
        """The message as it is now, with attempts, receipts and events. Raises ``NotFound``."""
        return self._message(Request("GET", _path(id)))

    def list(self, /, **filters: object) -> Iterator[Message]:
        """Messages, newest first, fetched page by page while you iterate.

        Filters: ``status``, ``channel``, ``to``, ``reference``, ``tag``, ``batch``, ``created_after``,
        ``created_before`` (aware datetimes or ISO text). The last 7 days unless told otherwise. Errors come
        up while iterating.
        """
        query = tuple((name, _filter(name, value)) for name, value in filters.items() if value is not None)
        return self._pages(query)

    def cancel(self, id: str | UUID) -> Message:
        """Withdraw a message that is not on its way yet. Raises ``Conflict`` when it is."""
        return self._act(id, "cancel", frozenset({Status.CANCELED}))

    def redeliver(self, id: str | UUID) -> Message:
        """Queue a failed, undelivered or expired message anew. Raises ``Conflict`` for others."""
        return self._act(id, "redeliver", frozenset({Status.QUEUED, Status.SENDING, Status.SENT, Status.DELIVERED}))

    def wait(self, id: str | UUID, until: str = "final", timeout: float = 30) -> Message:
        """Poll until the message is final, or has reached the status ``until``; ``timeout`` in seconds.

        ``delivered`` and ``read`` also count as ``sent``, and ``read`` as ``delivered``. A message that has
        become final somewhere else is returned too, since waiting on is vain: look at its status. Raises
        ``Timeout``.
        """
        wanted = None if until == "final" else _wanted(until)
        ends_at = time.monotonic() + timeout
        pause = _FIRST_POLL_SECONDS
        while True:
            seen = self._glimpse(id, ends_at - time.monotonic())
            if isinstance(seen, Message) and (seen.final or (wanted and seen.status in wanted)):
                return seen
            if time.monotonic() + pause >= ends_at:
                raise _too_late(id, until, timeout, seen) from (seen if isinstance(seen, ChaskiError) else None)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def _glimpse(self, id: str | UUID, remaining: float) -> Message | ChaskiError:
        """The message, or an error that may pass while waiting goes on."""
        try:
            return self._message(Request("GET", _path(id)), min(remaining, self._deadline))
        except ChaskiError as error:
            if not error.retryable:
                raise
            return error

    def _act(self, id: str | UUID, verb: str, reached: frozenset[Status]) -> Message:
        """A lost answer makes the repeat find its own work done, and refused: then what counts is where the
        message is.
        """
        request = Request("POST", f"{_path(id)}/{verb}", body=b"{}", key=with_identity({})["key"])
        try:
            return self._message(request)
        except Conflict as conflict:
            if conflict.attempts > 1:
                message = self.get(id)
                if message.status in reached:
                    return message
            raise

    def _pages(self, query: tuple[tuple[str, str], ...]) -> Iterator[Message]:
        cursor: str | None = ""
        while cursor is not None:
            here = (*query, ("cursor", cursor)) if cursor else query
            request = Request("GET", "/messages", query=here)
            page = self._call(request).json(self._named(request))
            yield from (self._read(request, each) for each in page.get("results") or ())
            cursor = page.get("next") or None

    def _post_batch(self, body: bytes) -> Mapping[str, Any]:
        request = Request("POST", "/batches", body=body)
        return self._call(request).json(self._named(request))

    def _message(self, request: Request, deadline: float | None = None) -> Message:
        return self._read(request, self._call(request, deadline).json(self._named(request)))

    def _read(self, request: Request, data: Mapping[str, Any]) -> Message:
        try:
            return Message.from_json(data)
        except (KeyError, TypeError) as error:
            raise Unavailable(
                f"{self._named(request)} answered with something that is no message ({error!r}). Is CHASKI_URL right?",
                code="unreadable_answer",
            ) from error

    def _call(self, request: Request, deadline: float | None = None) -> Answer:
        answer = self._exchange(request, self._deadline if deadline is None else deadline)
        if answer.status >= 300:
            raise error_for(answer, self._named(request))
        return answer

    def _exchange(self, request: Request, deadline: float) -> Answer:
        """The one way out; `chaski.testing` puts its outbox here."""
        return self._transport.exchange(request, deadline)

    def _named(self, request: Request) -> str:
        return f"{request.method} {self.url}{request.full_path}"


def _transport(url: str, key: str, timeout: tuple[float, float], retries: int) -> Transport:
    try:
        from chaski.transport import Transport
    except ImportError as error:
        raise ConfigurationError(
            f"the client needs urllib3 2 or later, which cannot be imported here ({error}): pip install 'urllib3>=2'",
            code="urllib3_missing",
        ) from error
    return Transport(url, key, version=__version__, timeout=timeout, retries=retries)


def _path(id: str | UUID) -> str:
    return f"/messages/{quote(str(id), safe='')}"


def _filter(name: str, value: object) -> str:
    return instant(name, value) if name in ("created_after", "created_before") else str(value)


def _wanted(until: str) -> set[Status]:
    try:
        status = Status(until)
    except ValueError:
        words = ", ".join(status.value for status in Status)
        raise ValueError(f"until must be final or a status ({words}), not {until!r}") from None
    return {status} | _BEYOND.get(status, set())


def _too_late(id: str | UUID, until: str, timeout: float, seen: Message | ChaskiError) -> Timeout:
    if isinstance(seen, ChaskiError):
        state = f"could not be looked at: {seen}"
    else:
        waiting = f", waiting for {seen.waiting_for}" if seen.waiting_for else ""
        state = f"is {seen.status}{waiting}"
    return Timeout(f"message {id} {state}, and not {until} after {timeout:g} s; it goes on without us, so wait again")
