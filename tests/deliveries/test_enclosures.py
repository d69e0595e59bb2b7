"""Files of mails under way: read once for all who wait, told apart when they are gone or only away, and never too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from channels.attachments import Attachment, Carriage, Kind, Takes
from channels.base import ContentRefused, NotSent, Outbound
from channels.sandbox import Sandbox
from deliveries import files
from deliveries.delivery import enclosures
from deliveries.delivery.enclosures import Enclosures
from tests.factories import Caller

SOON = 100.0


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Enclosing(Sandbox):
    """Carries files as mails do."""

    name = "enclosing"
    takes = Takes(Carriage.ENCLOSED, 20, dict.fromkeys(Kind, 25_000_000))


@pytest.fixture
def file(transactional_db: None, shop: Caller) -> UUID:
    return files.keep(shop.service.pk, b"the guide", "guide.pdf", "application/pdf")[0]


@pytest.fixture
def made() -> Iterator[Enclosures]:
    found = Enclosures()
    yield found
    found._thread.shutdown()
    found._connection.close()


def with_files(*sizes: int) -> Outbound:
    given = tuple(Attachment("a", "image/png", "https://x.example/a", size) for size in sizes)
    return Outbound("0190a5b4-7c00-7000-8000-0123456789ab", "email", "a@b.example", attachments=given)


@on_a_loop
async def test_a_file_is_read_once_for_all_who_wait(
    file: UUID, made: Enclosures, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, select = [], made._select
    monkeypatch.setattr(made, "_select", lambda file_id: reads.append(file_id) or select(file_id))
    found = await asyncio.gather(*(made.read(file) for _ in range(20)))
    assert found == [b"the guide"] * 20
    assert await made.reader(file)() == b"the guide"
    assert reads == [file]


@on_a_loop
async def test_who_gives_up_takes_the_file_from_nobody(file: UUID, made: Enclosures) -> None:
    first, second = (asyncio.ensure_future(made.read(file)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"the guide"


@on_a_loop
async def test_a_file_that_is_gone_is_no_doubt(transactional_db: None, made: Enclosures) -> None:
    with pytest.raises(ContentRefused, match="file_gone"):
        await made.read(uuid4())


@on_a_loop
async def test_a_database_that_is_away_lets_the_message_come_again(
    made: Enclosures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(file_id: UUID) -> bytes:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(made, "_select", away)
    with pytest.raises(NotSent, match="file_unavailable"):
        await made.read(uuid4())


@on_a_loop
async def test_only_the_latest_files_are_kept(made: Enclosures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosures, "KEPT_BYTES", 30)
    monkeypatch.setattr(made, "_select", lambda file_id: bytes(10))
    ids = [uuid4() for _ in range(4)]
    for each in ids:
        await made.read(each)
    assert list(made._kept) == ids[1:]


@on_a_loop
async def test_a_mail_waits_for_the_memory_that_its_files_need(
    made: Enclosures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enclosures, "ROOM_BYTES", 100 * enclosures.TIMES)
    made._free = enclosures.ROOM_BYTES
    provider = Enclosing({}, None)  # type: ignore[arg-type]
    loop, entered = asyncio.get_running_loop(), list[str]()

    async def second() -> None:
        async with made.room(with_files(60), provider, loop.time() + SOON):
            entered.append("second")

    async with made.room(with_files(30, 30), provider, loop.time() + SOON):
        waiting = asyncio.ensure_future(second())
        await asyncio.sleep(0.05)
        entered.append("first")
        with pytest.raises(NotSent, match="no_room"):
            async with made.room(with_files(60), provider, loop.time() + provider.call_seconds + 0.02):
                raise AssertionError
    await waiting
    assert entered == ["first", "second"]
    assert made._free == enclosures.ROOM_BYTES


@on_a_loop
async def test_a_file_that_is_larger_than_the_room_goes_alone(
    made: Enclosures, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Enclosing({}, None)  # type: ignore[arg-type]
    async with made.room(with_files(*[25_000_000] * 9), provider, asyncio.get_running_loop().time() + SOON):
        assert made._free == 0


@on_a_loop
async def test_a_vendor_that_fetches_files_needs_no_memory_here(made: Enclosures) -> None:
    provider = Sandbox({}, None)  # type: ignore[arg-type]
    async with made.room(with_files(25_000_000), provider, asyncio.get_running_loop().time() + SOON):
        assert made._free == enclosures.ROOM_BYTES
