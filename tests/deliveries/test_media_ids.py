"""Media ids: one upload for all who want the same file, whatever process they are in; failed ones harm no message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from channels.attachments import Attachment
from channels.base import ContentRefused, InDoubt, NotSent, ReceiptKind, SendError, Throttled, Transient
from channels.http import HttpClient
from channels.kept import Keeper, MediaId
from channels.whatsapp_cloud import WhatsAppCloud
from channels.written import tell_written, watch_writing
from deliveries import files, maintenance
from deliveries.delivery import media_ids, media_rows
from deliveries.delivery.enclosures import Enclosures
from deliveries.delivery.media_ids import MediaIds
from deliveries.models import KeptMedia
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)
SOON = 100.0
MONTH = timedelta(days=29)
ACCOUNT = 7


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def number(phone_number_id: str = "106540352242922", **settings: str) -> WhatsAppCloud:
    checked = WhatsAppCloud.check({"phone_number_id": phone_number_id, "token": "x", **settings})
    return WhatsAppCloud(checked, HttpClient())


@dataclass
class Vendor:
    """Counts uploads; each gives another id, or raises ``error``. While ``held``, none ends."""

    error: Exception | None = None
    uploads: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def upload(self) -> MediaId:
        self.uploads += 1
        media = MediaId(f"media-{self.uploads}", MONTH)
        self.begun.set()
        tell_written()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return media


@dataclass
class Process:
    """What one worker process knows; ``statements`` counts what it asked the database."""

    files: Enclosures
    ids: MediaIds
    statements: list[str] = field(default_factory=list)
    looked_again: asyncio.Event = field(default_factory=asyncio.Event)

    def keeper(self, file: UUID, provider: WhatsAppCloud | None = None, *, patience: float = SOON) -> Keeper:
        """For one message of the account that carries the file."""
        given = Attachment("guide.pdf", "application/pdf", "https://x.example/guide.pdf", 9, file_id=file)
        until = asyncio.get_running_loop().time() + patience
        keeper = self.ids.kept(given, ACCOUNT, provider or number(), until).keeper
        assert keeper is not None
        return keeper

    async def written(self) -> None:
        """Everything that follows has been written."""
        while self.ids._tasks:
            await asyncio.gather(*self.ids._tasks)


@pytest.fixture
def start(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Process]]:
    """Starts worker processes, as far as media ids go."""
    made: list[Process] = []

    def process() -> Process:
        enclosures = Enclosures()
        found, ask = Process(enclosures, MediaIds(enclosures)), enclosures.ask

        async def counted(work: Any) -> Any:
            found.statements.append(work.func.__name__)
            if found.statements.count("take") == 2:
                found.looked_again.set()
            return await ask(work)

        monkeypatch.setattr(enclosures, "ask", counted)
        made.append(found)
        return found

    yield process
    for each in made:
        each.files.close()
        each.files._thread.shutdown()


@pytest.fixture
def process(start: Callable[[], Process]) -> Process:
    return start()


@pytest.fixture
def file(transactional_db: None, shop: Caller) -> UUID:
    return files.keep(shop.service.pk, b"the guide", "guide.pdf", "application/pdf")[0]


def kept() -> list[str]:
    return list(KeptMedia.objects.values_list("media_id", flat=True))


async def database(work: Callable[[], Any]) -> Any:
    """Django's part of a test, in its thread."""
    return await asyncio.to_thread(_closing, work)


def _closing(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connection.close()


@on_a_loop
async def test_one_uploads_for_all_who_want_the_file(file: UUID, process: Process) -> None:
    vendor = Vendor()
    vendor.open.clear()
    asking = [asyncio.ensure_future(process.keeper(file).uploaded(vendor.upload)) for _ in range(50)]
    await vendor.begun.wait()
    vendor.open.set()
    assert set(await asyncio.gather(*asking)) == {"media-1"}
    assert await process.keeper(file).uploaded(vendor.upload) == "media-1"
    await process.written()
    assert (vendor.uploads, process.statements) == (1, ["take", "keep"])
    assert await database(kept) == ["media-1"]


@on_a_loop
async def test_another_process_waits_for_the_one_that_uploads(
    file: UUID, start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_ids, "LOOK_AGAIN_SECONDS", 0.02)
    vendor, one, another = Vendor(), start(), start()
    vendor.open.clear()
    first = asyncio.ensure_future(one.keeper(file).uploaded(vendor.upload))
    await vendor.begun.wait()
    second = asyncio.ensure_future(another.keeper(file).uploaded(vendor.upload))
    await another.looked_again.wait()
    vendor.open.set()
    assert (await first, await second, vendor.uploads) == ("media-1", "media-1", 1)


@on_a_loop
async def test_a_process_that_starts_anew_finds_what_was_uploaded(file: UUID, start: Callable[[], Process]) -> None:
    vendor, before = Vendor(), start()
    await before.keeper(file).uploaded(vendor.upload)
    await before.written()
    assert await start().keeper(file).uploaded(vendor.upload) == "media-1"
    assert vendor.uploads == 1


@on_a_loop
async def test_another_number_another_host_and_another_kind_of_file_have_ids_of_their_own(
    file: UUID, process: Process
) -> None:
    vendor = Vendor()
    for provider in (number(), number("2"), number(base_url="https://graph.example/v99.0")):
        await process.keeper(file, provider).uploaded(vendor.upload)
    picture = Attachment("guide.pdf", "image/png", "https://x.example/a.png", 9, file_id=file)
    keeper = process.ids.kept(picture, ACCOUNT, number(), asyncio.get_running_loop().time() + SOON).keeper
    assert keeper is not None
    assert await keeper.uploaded(vendor.upload) == "media-4"


@on_a_loop
async def test_a_file_that_only_the_service_has_is_left_to_its_url() -> None:
    given = Attachment("a.png", "image/png", "https://x.example/a.png")
    assert MediaIds(Enclosures()).kept(given, ACCOUNT, number(), SOON) is given


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (InDoubt("timeout"), NotSent, "upload_failed"),
        (Transient("http_503"), NotSent, "upload_failed"),
        (ValueError("a mistake of ours"), NotSent, "upload_failed"),
        (Throttled("4"), Throttled, "4"),
        (ContentRefused("131053"), ContentRefused, "131053"),
    ],
)
@on_a_loop
async def test_an_upload_that_fails_leaves_no_doubt_and_the_next_one_tries(
    error: Exception, expected: type[SendError], code: str, file: UUID, process: Process
) -> None:
    vendor = Vendor(error)
    with pytest.raises(SendError) as caught:
        await process.keeper(file).uploaded(vendor.upload)
    assert (type(caught.value), caught.value.code) == (expected, code)
    await process.written()
    vendor.error = None
    assert await process.keeper(file).uploaded(vendor.upload) == "media-2"


@on_a_loop
async def test_a_failed_upload_is_one_failure_however_many_waited(file: UUID, process: Process) -> None:
    """Otherwise a single one would open the account's breaker."""
    vendor = Vendor(InDoubt("timeout"))
    asking = (process.keeper(file).uploaded(vendor.upload) for _ in range(20))
    failed = await asyncio.gather(*asking, return_exceptions=True)
    codes = sorted(error.code for error in failed if isinstance(error, NotSent))
    assert codes == ["upload_failed", *["upload_under_way"] * 19]


@on_a_loop
async def test_a_message_that_can_wait_no_longer_comes_again_and_the_upload_goes_on(
    file: UUID, process: Process
) -> None:
    vendor = Vendor()
    vendor.open.clear()
    with pytest.raises(NotSent, match="upload_under_way"):
        await process.keeper(file, patience=0.05).uploaded(vendor.upload)
    vendor.open.set()
    assert await process.keeper(file).uploaded(vendor.upload) == "media-1"
    assert vendor.uploads == 1


@on_a_loop
async def test_an_upload_is_no_request_of_the_message_that_waits_for_it(file: UUID, process: Process) -> None:
    writing = watch_writing()
    await process.keeper(file).uploaded(Vendor().upload)
    assert writing.at is None
    tell_written()
    assert writing.at is not None, "its own request is"


@on_a_loop
async def test_who_vanishes_during_an_upload_is_followed_by_another(
    file: UUID, start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_ids, "LOOK_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(media_ids, "OWN_SECONDS", 0.2)
    vendor, gone = Vendor(), start()
    vendor.open.clear()
    vanished = asyncio.ensure_future(gone.keeper(file).uploaded(vendor.upload))
    await vendor.begun.wait()
    monkeypatch.setattr(gone.ids, "_later", lambda work: None)  # and tells nobody
    vanished.cancel()
    other = Vendor()
    assert await start().keeper(file).uploaded(other.upload) == "media-1"
    await gone.ids.close()


@on_a_loop
async def test_a_process_that_stops_leaves_its_upload_to_another_at_once(file: UUID, process: Process) -> None:
    vendor = Vendor()
    vendor.open.clear()
    asking = asyncio.ensure_future(process.keeper(file).uploaded(vendor.upload))
    await vendor.begun.wait()
    assert await database(kept) == [""]
    await process.ids.close()
    assert not process.ids._tasks, "it is written before the process ends"
    assert await database(kept) == []
    with pytest.raises(asyncio.CancelledError):
        await asking


@on_a_loop
async def test_what_the_vendor_does_not_know_any_more_is_uploaded_anew(
    file: UUID, start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, one, another = Vendor(), start(), start()
    for each in (one, another):
        await each.keeper(file).uploaded(vendor.upload)
        await each.written()
    monkeypatch.setattr(media_rows, "FRESH", timedelta(0))
    assert await one.keeper(file).forget("media-1")
    assert await one.keeper(file).uploaded(vendor.upload) == "media-2"
    await one.written()
    assert await another.keeper(file).forget("media-1"), "it hears that there is another one by now"
    assert await another.keeper(file).uploaded(vendor.upload) == "media-2"
    assert vendor.uploads == 2


@on_a_loop
async def test_a_file_that_the_vendor_cannot_take_is_not_uploaded_for_each_message(
    file: UUID, process: Process
) -> None:
    vendor = Vendor()
    await process.keeper(file).uploaded(vendor.upload)
    await process.written()
    assert not await process.keeper(file).forget("media-1")
    assert await process.keeper(file).uploaded(vendor.upload) == "media-1"


@on_a_loop
async def test_an_id_whose_time_is_over_is_asked_for_anew(file: UUID, start: Callable[[], Process]) -> None:
    vendor, before = Vendor(), start()
    await before.keeper(file).uploaded(vendor.upload)
    await before.written()
    await database(lambda: KeptMedia.objects.update(kept_until=steps.now()))
    assert await start().keeper(file).uploaded(vendor.upload) == "media-2"


@on_a_loop
async def test_many_files_are_looked_up_in_two_statements(process: Process, shop: Caller) -> None:
    ids = await database(
        lambda: [files.keep(shop.service.pk, b"%d" % each, "a.pdf", "application/pdf")[0] for each in range(60)]
    )
    vendor, asking = Vendor(), []
    for each in ids:
        asking.append(asyncio.ensure_future(process.keeper(each).uploaded(vendor.upload)))
        if len(asking) % 10 == 0:
            await asyncio.sleep(0)  # as the engine begins the calls of a claim
    assert len(set(await asyncio.gather(*asking))) == 60
    assert process.statements.count("take") <= 2


@on_a_loop
async def test_a_database_that_is_away_lets_the_message_come_again(
    file: UUID, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(work: Any) -> Any:
        raise psycopg.OperationalError("away")

    vendor = Vendor()
    with monkeypatch.context() as patch:
        patch.setattr(process.files, "ask", away)
        with pytest.raises(NotSent, match="file_unavailable"):
            await process.keeper(file).uploaded(vendor.upload)
        with pytest.raises(NotSent, match="file_unavailable"):
            await process.keeper(file).forget("media-1")
        process.keeper(file).learn(MediaId("media-9", MONTH))
        await process.written()
    assert await process.keeper(file).uploaded(vendor.upload) == "media-9", "this process knows it all the same"


@on_a_loop
async def test_one_goes_first_and_the_others_wait_for_what_the_vendor_says(file: UUID, process: Process) -> None:
    firsts = 0

    async def one() -> str:
        nonlocal firsts
        keeper = process.keeper(file)
        async with keeper.first() as known:
            if known:
                return known
            firsts += 1
            await asyncio.sleep(0.02)
            if firsts == 1:
                raise ContentRefused("400", "no")
            keeper.learn(MediaId("file-id", MONTH))
            return ""

    found = await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)
    assert (firsts, found.count("file-id")) == (2, 18)
    await process.written()
    assert await database(kept) == ["file-id"]


@on_a_loop
async def test_where_the_vendor_tells_no_id_nobody_waits_for_the_next_answer(file: UUID, process: Process) -> None:
    together = asyncio.Barrier(3)

    async def one() -> None:
        async with process.keeper(file).first() as known, asyncio.timeout(5):
            assert known == ""
            await together.wait()

    async with process.keeper(file).first() as known:
        assert known == ""
    await asyncio.gather(*(one() for _ in range(3)))


@on_a_loop
async def test_those_who_waited_for_the_first_go_all_at_once(file: UUID, process: Process) -> None:
    together, waiting = asyncio.Barrier(3), []

    async def one() -> None:
        async with process.keeper(file).first() as known:
            assert known == "file-id"
            async with asyncio.timeout(5):
                await together.wait()

    keeper = process.keeper(file)
    async with keeper.first():
        waiting = [asyncio.ensure_future(one()) for _ in range(3)]
        await asyncio.sleep(0)
        keeper.learn(MediaId("file-id", MONTH))
    await asyncio.gather(*waiting)


@on_a_loop
async def test_who_waited_for_the_first_long_enough_goes_without(file: UUID, process: Process) -> None:
    async with process.keeper(file).first() as first, process.keeper(file, patience=0.02).first() as second:
        assert (first, second) == ("", "")
    await process.written()
    assert await database(kept) == [], "nobody is at it any more"


@pytest.mark.parametrize(
    ("code", "minutes", "left"),
    [("131053", 60, []), ("131026", 60, ["m"]), ("131053", 1, ["m"]), ("131053", -60, ["m"])],
    ids=["of media", "of the recipient", "fresh", "found out after the message went"],
)
def test_a_receipt_that_says_that_the_file_could_not_be_used_forgets_its_id(
    code: str, minutes: int, left: list[str], shop: Caller
) -> None:
    make_account("whatsapp")
    file_id, _ = files.keep(shop.service.pk, b"1", "a.pdf", "application/pdf")
    [sent] = steps.accept(shop.service, channel="whatsapp", attachments=[str(file_id)])
    [claimed] = steps.claim(channel="whatsapp", ids=[sent])
    steps.begun([claimed])
    steps.record(claimed, steps.ACCEPTED)
    message = steps.message(sent)
    now = steps.now()
    KeptMedia.objects.create(
        file_id=file_id,
        account_id=message.account_id,
        place="x",
        media_id="m",
        kept_at=now - timedelta(minutes=minutes),
        kept_until=now + timedelta(days=9),
    )
    with steps.later(timedelta(hours=2) if minutes < 0 else timedelta(0)):
        steps.receive(message, ReceiptKind.UNDELIVERED, code=code)
    assert steps.message(sent).status == "undelivered"
    assert kept() == left


def test_ids_go_with_their_file_and_when_their_time_is_over(shop: Caller) -> None:
    used, gone = (files.keep(shop.service.pk, each, "a.pdf", "application/pdf")[0] for each in (b"1", b"2"))
    now = steps.now()
    for place, file_id, days in (("used", used, 9), ("over", used, 1), ("gone", gone, 9)):
        until = now + timedelta(days=days)
        KeptMedia.objects.create(
            file_id=file_id, account_id=1, place=place, media_id="m", kept_at=now, kept_until=until
        )
    with steps.later(timedelta(days=8)):
        files.keep(shop.service.pk, b"1", "a.pdf", "application/pdf")
        done = maintenance.run()
    assert (done["files"], done["media_ids"]) == (1, 2)
    assert [row.place for row in KeptMedia.objects.all()] == ["used"]
