"""Files through a whole engine to a vendor that keeps them: one upload, many messages, and what a failed one does to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest

from chaski.vocabulary import Lane
from deliveries import files, intake
from deliveries.delivery import media_rows
from deliveries.delivery.engine import Engine
from deliveries.models import Account, Attempt, KeptMedia, Message, Pending
from deliveries.models.messages import Origin
from tests.factories import Caller, make_account
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


class Meta(ThreadingHTTPServer):
    """Plays the Cloud API: knows what was uploaded to it, until it is told to forget."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.uploads: list[bytes] = []
        self.known: set[str] = set()
        #: The media id of each message that it took.
        self.taken: list[str] = []
        self.upload_seconds = 0.0
        self.upload_status = 200

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def uploaded(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """One file."""
        time.sleep(self.upload_seconds)
        with self.lock:
            self.uploads.append(body)
            media_id = f"media-{len(self.uploads)}"
            self.known.add(media_id)
        return self.upload_status, {"id": media_id}

    def written(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """One message."""
        media_id = json.loads(body).get("document", {}).get("id", "")
        with self.lock:
            if media_id and media_id not in self.known:
                return 400, {"error": {"code": 100, "message": "Param document['id'] is not a valid media attachment"}}
            self.taken.append(media_id)
            return 200, {"messages": [{"id": f"wamid.{len(self.taken):032}"}]}


class Handler(BaseHTTPRequestHandler):
    """One request to it."""

    protocol_version = "HTTP/1.1"
    server: Meta

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.uploaded if self.path.endswith("/media") else self.server.written
        status, said = answer(body)
        encoded = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def meta() -> Iterator[Meta]:
    with Meta() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture
def account(meta: Meta) -> Account:
    options = {"phone_number_id": "106540352242922", "base_url": meta.url, "rate": "none", "recipient_rate": "none"}
    return make_account("whatsapp", "whatsapp_cloud", options=options, secrets={"token": "EAAG"})


@pytest.fixture
def file(shop: Caller) -> UUID:
    return files.keep(shop.service.pk, b"%PDF the guide", "guide.pdf", "application/pdf")[0]


def accept(shop: Caller, file: UUID | None, count: int) -> None:
    """One batch of ``count`` messages with the file, to as many people."""
    attachments = [str(file)] if file else []
    drafts = [
        intake.draft(
            shop.service,
            {"channel": "whatsapp", "to": f"+569123456{each:02}", "text": "Here.", "attachments": attachments},
        )
        for each in range(count)
    ]
    intake.accept(drafts, origin=Origin.API)


def drained(worker: Engine) -> None:
    worker.drain("whatsapp", Lane.NORMAL, (), "task-of-a-test")
    wait_for(lambda: not worker.in_flight(), 10, "the last record")


def test_a_batch_with_one_file_uploads_it_once(
    shop: Caller, worker: Engine, meta: Meta, account: Account, file: UUID
) -> None:
    accept(shop, file, 20)
    drained(worker)
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}
    assert (len(meta.uploads), meta.taken) == (1, ["media-1"] * 20)
    assert b"%PDF the guide" in meta.uploads[0]
    accept(shop, file, 2)
    drained(worker)
    assert (len(meta.uploads), len(meta.taken)) == (1, 22)


def test_messages_without_files_ask_nothing_about_files(
    shop: Caller, worker: Engine, meta: Meta, account: Account
) -> None:
    accept(shop, None, 5)
    drained(worker)
    assert meta.taken == [""] * 5
    assert worker._accounts is not None
    assert worker._accounts._files._connection._connection is None


def test_an_attempt_was_written_when_its_message_was_and_not_its_file(
    shop: Caller, worker: Engine, meta: Meta, account: Account, file: UUID
) -> None:
    meta.upload_seconds = 0.3
    accept(shop, file, 1)
    drained(worker)
    [attempt] = Attempt.objects.all()
    assert attempt.outcome == "accepted"
    assert attempt.written_at is not None
    assert attempt.written_at - attempt.opened_at >= timedelta(seconds=0.3)


def test_what_meta_has_forgotten_is_uploaded_once_more_within_one_attempt_each(
    shop: Caller, worker: Engine, meta: Meta, account: Account, file: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_rows, "FRESH", timedelta(0))
    accept(shop, file, 1)
    drained(worker)
    wait_for(lambda: KeptMedia.objects.exclude(media_id="").exists(), 5, "the media id")
    meta.known.clear()
    accept(shop, file, 5)
    drained(worker)
    assert (len(meta.uploads), meta.taken) == (2, ["media-1", *["media-2"] * 5])
    assert Attempt.objects.count() == 6


def test_an_upload_that_fails_harms_no_message(
    shop: Caller, worker: Engine, meta: Meta, account: Account, file: UUID
) -> None:
    """Not one of them left: none is in doubt, none counts as perhaps delivered, all come again."""
    meta.upload_status = 503
    accept(shop, file, 3)
    worker.drain("whatsapp", Lane.NORMAL, (), "task-of-a-test")
    wait_for(lambda: not worker.in_flight(), 10, "the last record")
    assert meta.taken == []
    attempts = Attempt.objects.all()
    assert {attempt.outcome for attempt in attempts} == {"not_sent"}
    assert {attempt.code for attempt in attempts} >= {"upload_failed"}
    assert not Attempt.objects.exclude(written_at=None).exists()
    assert Pending.objects.filter(waiting_for="retry", blind_count=0).count() == 3
    meta.upload_status = 200
    Pending.objects.update(due_at=Message.objects.values_list("created_at", flat=True)[0])
    drained(worker)
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}
    assert set(meta.taken) == {"media-2"}
