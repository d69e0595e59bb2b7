"""Files through the whole of Chaski: uploaded by the client, enclosed in a mail, fetched by a vendor from a signed URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs
from urllib.request import urlopen

import pytest
from aiosmtpd.controller import Controller

from config.ports import any_free
from tests.channels.postbox import Inbox
from tests.processes.system import System, Tenant

pytestmark = pytest.mark.processes

GUIDE = bytes(range(256)) * 2_000


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    path = tmp_path / "guía de envío.pdf"
    path.write_bytes(GUIDE)
    return path


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[Inbox, int]]:
    """A mail server that nobody here wrote, and its port."""
    found = Inbox()
    controller = Controller(found, hostname="127.0.0.1", port=any_free())
    controller.start()
    yield found, controller.port
    controller.stop()


class Fetching(BaseHTTPRequestHandler):
    """A vendor that fetches what it is sent before it answers, as Twilio does."""

    fetched: list[tuple[str, str, bytes]] = []

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        for url in form["MediaUrl"]:
            with urlopen(url) as answer:
                self.fetched.append((url, answer.headers["Content-Type"], answer.read()))
        body = json.dumps({"sid": "SM" + "0" * 32}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def vendor() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Fetching) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def shop(system: System, inbox: tuple[Inbox, int], vendor: str) -> Tenant:
    mails = ("email", "smtp", "host=127.0.0.1", f"port={inbox[1]}", "security=none", "from=hello@shop.example")
    channel, provider, _, *options = system.twilio()
    return system.new_service(mails, (channel, provider, f"base_url={vendor}", *options))


def test_a_mail_carries_the_file_itself(shop: Tenant, inbox: tuple[Inbox, int], guide: Path) -> None:
    file = shop.client.upload(guide)
    assert (file.name, file.content_type, file.size) == ("guía de envío.pdf", "application/pdf", len(GUIDE))
    message = shop.client.send("email", "a@b.example", text="Here it is.", subject="Guide", attachments=[file])
    shop.client.wait(message.id, until="sent", timeout=20)
    [envelope] = [each for each in inbox[0].envelopes if each.rcpt_tos == ["a@b.example"]]
    [part] = message_from_bytes(envelope.original_content or b"", policy=policy.default).iter_attachments()  # type: ignore[attr-defined]
    assert (part.get_filename(), part.get_content()) == ("guía de envío.pdf", GUIDE)


def test_a_vendor_fetches_the_file_from_us(shop: Tenant, guide: Path) -> None:
    file = shop.client.upload(guide.read_bytes(), "photo.png")
    message = shop.client.send("sms", "+56912345678", attachments=[file])
    shop.client.wait(message.id, until="sent", timeout=20)
    [(url, content_type, content)] = Fetching.fetched
    assert url.endswith("/photo.png")
    assert (content_type, content) == ("image/png", GUIDE)


def test_many_mails_share_one_file(shop: Tenant, inbox: tuple[Inbox, int], guide: Path) -> None:
    file = shop.client.upload(guide)
    rows = [
        {"channel": "email", "to": f"n{number}@c.example", "text": "x", "subject": "x", "attachments": [file]}
        for number in range(50)
    ]
    assert shop.client.send_many(rows).accepted == 50
    shop.settled(30)
    received = [each for each in inbox[0].envelopes if each.rcpt_tos[0].endswith("@c.example")]
    assert len(received) == 50
    assert all(len(each.original_content or b"") > len(GUIDE) * 4 / 3 for each in received)
