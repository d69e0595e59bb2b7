"""The provider simulator: every fault by its address, on every wire, told by the real providers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from channels.base import (
    Accepted,
    InboundRequest,
    InDoubt,
    Misconfigured,
    NotSent,
    Outbound,
    Provider,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    SendError,
    Throttled,
)
from channels.email_smtp import Smtp
from channels.http import HttpClient
from channels.simulator.desk import Desk
from channels.simulator.faults import FAULTS, Act
from channels.simulator.server import Running, running
from tests.channels.simulated import FAILS, kept, message, numbered, provider

CHANNELS = ("sms", "telegram", "email", "webhook")
#: Where a wire has another way to say it: SMTP's 4yz took nothing, any 2xx of an endpoint is acceptance, and no
#: endpoint speaks for the account.
DIFFERS: dict[tuple[str, str], type[SendError] | None] = {
    ("email", "server_error"): Throttled,
    ("webhook", "rubbish"): None,
    ("webhook", "auth"): Throttled,
}


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("word", FAULTS)
async def test_every_fault_is_had_on_every_wire_and_the_ledger_knows_what_was_accepted(
    channel: str, word: str, simulator: Running, http: HttpClient, tmp_path: Path
) -> None:
    sender = provider(channel, simulator, http)
    sender.call_seconds = 0.4 if FAULTS[word].act is Act.HANG else 5.0
    expected = DIFFERS.get((channel, word), FAILS.get(word))
    if expected is None:
        assert isinstance(await sender.send(message(channel, word)), Accepted)
    else:
        with pytest.raises(SendError) as caught:
            await sender.send(message(channel, word))
        assert type(caught.value) is expected
        if word == "throttle":
            assert getattr(caught.value, "retry_after", None) == 1
    assert len(kept(tmp_path)) == FAULTS[word].kept
    await sender.close()


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("word", ["throttle", "server_error"])
async def test_what_fails_once_passes_at_the_next_attempt(
    channel: str, word: str, simulator: Running, http: HttpClient, tmp_path: Path
) -> None:
    sender = provider(channel, simulator, http)
    with pytest.raises(SendError):
        await sender.send(message(channel, word))
    await sender.send(message(channel, word, attempt=2))
    with pytest.raises(SendError):
        await sender.send(message(channel, word, number=2))  # another message begins anew
    assert len(kept(tmp_path)) == 1
    await sender.close()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_an_acceptance_is_a_line_of_the_ledger(
    channel: str, simulator: Running, http: HttpClient, tmp_path: Path
) -> None:
    sender = provider(channel, simulator, http)
    outbound = message(channel, "ok", receipts_url="http://127.0.0.1:9/receipts/1")
    accepted = await sender.send(outbound)
    [line] = kept(tmp_path)
    assert line["provider"] == {"sms": "twilio", "email": "smtp"}.get(channel, channel)
    assert line["recipient"] == ("/fault/ok" if channel == "webhook" else outbound.to)
    assert line["message_id"] == (None if channel == "telegram" else outbound.message_id)
    assert len(line["body_sha256"]) == 64
    if channel in ("sms", "telegram"):
        assert line["provider_message_id"] == accepted.provider_message_id
    await sender.close()


@pytest.mark.parametrize("channel", ["sms", "telegram", "webhook"])
async def test_what_the_vendor_would_not_understand_is_refused(
    channel: str, simulator: Running, tmp_path: Path
) -> None:
    paths = {
        "sms": ["/twilio/2010-04-01/Accounts/AC1/Messages.json"],
        "telegram": ["/telegram/botwithout/sendMessage", "/telegram/bot1:a/getMe", "/telegram/bot1:a/sendMessage"],
        "webhook": ["/webhooks"],
    }
    async with aiohttp.ClientSession() as session:
        for path in paths[channel]:
            async with session.post(simulator.url + path, data=b"\xff{") as answer:
                assert 400 <= answer.status < 500
    assert kept(tmp_path) == []


async def test_a_wrong_password_is_refused(simulator: Running) -> None:
    settings = {"host": "localhost", "port": str(simulator.smtp_port), "security": "none", "from": "a@b.example"}
    sender = Smtp(Smtp.check({**settings, "username": "shop", "password": "wrong"}), HttpClient())
    with pytest.raises(Misconfigured):
        await sender.send(message("email", "ok"))


class TestReceipts:
    async def posted(
        self, simulator: Running, http: HttpClient, word: str, enough: Callable[[list[Receipt]], bool]
    ) -> list[Receipt]:
        """What Twilio's callbacks say, verified."""
        sender = provider("sms", simulator, http)
        found: list[Receipt] = []
        came = asyncio.Event()

        async def receive(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            inbound = InboundRequest("POST", str(request.url), headers, dict(request.query), await request.read())
            sender.verify(inbound)
            found.extend(sender.parse(inbound))
            came.set()
            return web.Response()

        app = web.Application()
        app.add_routes([web.post("/receipts/1", receive)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/receipts/1"
        try:
            await self._send(sender, message("sms", word, receipts_url=url))
            async with asyncio.timeout(5):
                while not enough(found):
                    came.clear()
                    await came.wait()
        finally:
            await runner.cleanup()
        return found

    @staticmethod
    async def _send(sender: Provider, outbound: Outbound) -> None:
        try:
            await sender.send(outbound)
        except InDoubt:
            return

    @pytest.mark.parametrize(
        ("word", "kinds"),
        [
            ("ok", ["sent", "delivered"]),
            ("late_receipt", ["sent", "delivered"]),
            ("doubled_receipt", ["sent", "sent", "delivered", "delivered"]),
            ("reversed_receipt", ["delivered", "sent"]),
            ("undelivered", ["sent", "undelivered"]),
            ("reset_after", ["sent", "delivered"]),
        ],
    )
    async def test_the_receipts_come_as_the_recipient_asks(
        self, word: str, kinds: list[str], simulator: Running, http: HttpClient
    ) -> None:
        found = await self.posted(simulator, http, word, lambda seen: len(seen) == len(kinds))
        assert [str(receipt.kind) for receipt in found] == kinds
        assert {receipt.message_id for receipt in found} == {numbered(1)}
        assert len({receipt.event_id for receipt in found}) == len(set(kinds))
        if word == "undelivered":
            assert found[-1].code == "30003"

    async def test_a_late_receipt_is_late(self, simulator: Running, http: HttpClient) -> None:
        begun = asyncio.get_running_loop().time()
        found = await self.posted(simulator, http, "late_receipt", lambda seen: len(seen) == 2)
        assert found[-1].kind is ReceiptKind.DELIVERED
        assert asyncio.get_running_loop().time() - begun >= 0.2  # the fixture's lateness

    async def test_a_refused_message_has_no_receipts(self, simulator: Running, http: HttpClient) -> None:
        sender = provider("sms", simulator, http)
        with pytest.raises(RecipientRefused):
            await sender.send(message("sms", "reject", receipts_url="http://127.0.0.1:9/receipts/1"))
        async with aiohttp.ClientSession() as session, session.get(simulator.url + "/ledger/summary") as answer:
            summary = await answer.json()
        assert summary == {"accepted": 0, "providers": {}, "faults": {"reject": 1}, "receipts": {}}


async def test_the_simulator_ends_at_once_whatever_is_open_or_hangs(
    tmp_path: Path, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, real = asyncio.Semaphore(0), Desk.hang

    async def hang(desk: Desk) -> None:
        silent.release()
        await real(desk)

    monkeypatch.setattr(Desk, "hang", hang)
    async with running(tmp_path / "ledger.jsonl", hang_seconds=60) as simulator:
        idle, *hanging = [provider(channel, simulator, http) for channel in ("email", "email", "sms")]
        await idle.send(message("email", "ok"))  # its session is kept open
        for sender in hanging:
            sender.call_seconds = 30
        sending = asyncio.gather(
            *(sender.send(message(sender.channels[0], "timeout_before")) for sender in hanging), return_exceptions=True
        )
        for _ in hanging:
            await silent.acquire()
        begun = asyncio.get_running_loop().time()
    assert {type(error) for error in await sending} == {InDoubt}
    assert asyncio.get_running_loop().time() - begun < 3
    with pytest.raises(NotSent):
        await idle.send(message("email", "ok"))  # nobody is there, not even on the open session
    await idle.close()


async def test_a_port_that_is_taken_is_said_so(simulator: Running, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        async with running(tmp_path / "other.jsonl", port=simulator.port):
            pass
