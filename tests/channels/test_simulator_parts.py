"""The simulator's parts: faults by seed, the addresses that ask for them, and the ledger on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from channels.base import (
    InDoubt,
    Outbound,
    Provider,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient
from channels.simulator import ledger as ledger_module
from channels.simulator.faults import BY_SEED, FAULTS, OK, addresses, fault_of, table
from channels.simulator.ledger import Entry, Ledger
from channels.simulator.server import running
from tests.channels.simulated import FAILS, kept, numbered, provider


class TestSeed:
    async def outcomes(self, tmp_path: Path, name: str, seed: str, rate: float, count: int = 40) -> list[str]:
        """What ``count`` messages to ordinary recipients meet at their first attempts."""
        async with (
            running(tmp_path / name, seed=seed, fault_rate=rate, hang_seconds=0.05) as simulator,
            HttpClient() as http,
        ):
            sender = provider("webhook", simulator, http)
            return [await self._outcome(sender, number) for number in range(count)]

    @staticmethod
    async def _outcome(sender: Provider, number: int) -> str:
        outbound = Outbound(numbered(number), "webhook", "https://shop.example/hook", text="x")
        try:
            await sender.send(outbound)
        except SendError as error:
            return error.error_class
        return "accepted"

    async def test_the_same_seed_meets_the_same_faults_and_another_does_not(self, tmp_path: Path) -> None:
        first, again, other = [
            await self.outcomes(tmp_path, f"{number}.jsonl", seed, 0.5) for number, seed in enumerate("aab")
        ]
        assert first == again
        assert first != other
        assert {"accepted", "throttled", "transient", "in_doubt"} <= set(first)

    async def test_the_share_of_faults_is_about_what_was_asked_for(self, tmp_path: Path) -> None:
        assert set(await self.outcomes(tmp_path, "none.jsonl", "a", 0.0)) == {"accepted"}
        found = await self.outcomes(tmp_path, "some.jsonl", "a", 0.3, 150)
        # A doubtful rubbish answer of an endpoint is an acceptance, so a seventh of the faults is not seen.
        assert 0.15 < sum(word != "accepted" for word in found) / 150 < 0.4

    def test_it_draws_only_what_a_retry_can_mend(self) -> None:
        assert all(FAILS[fault.word] in (Throttled, Transient, InDoubt) for fault in BY_SEED)


class TestAddresses:
    def test_every_fault_is_found_by_each_of_its_addresses(self) -> None:
        for fault in FAULTS.values():
            for address in addresses(fault).values():
                assert fault_of(address) is fault

    @pytest.mark.parametrize(
        "to",
        [
            "+56912345678",
            "+56900009999",
            "9000004040",
            "default.throttle@example.com",
            "fault.nothing@example.com",
            "",
            "https://shop.example/faults/reject",
            "x+56900000404",
        ],
    )
    def test_an_ordinary_recipient_asks_for_nothing(self, to: str) -> None:
        assert fault_of(to) is OK

    @pytest.mark.parametrize("channel", ["sms", "email", "telegram", "webhook"])
    def test_a_recipient_of_the_table_passes_the_door_and_stays_itself(self, channel: str) -> None:
        from channels.media import MEDIA

        for fault in FAULTS.values():
            to = addresses(fault)["sms, whatsapp" if channel == "sms" else channel]
            assert MEDIA[channel].normalise(to) == to

    def test_the_table_has_a_row_for_each_fault(self) -> None:
        rows = table().splitlines()[2:]
        assert len(rows) == len(FAULTS)
        assert all(
            f"`{fault.word}`" in row and fault.says in row for fault, row in zip(FAULTS.values(), rows, strict=True)
        )


class TestLedger:
    @staticmethod
    def entry(number: int) -> Entry:
        return Entry("2026-11-23T12:00:00+00:00", "smtp", "shop", "a@b.example", None, str(number), "0" * 64)

    async def test_a_line_is_on_disk_before_the_sender_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        path = tmp_path / "ledger.jsonl"
        real = ledger_module.os.fsync

        def fsync(file: int) -> None:
            real(file)
            synced.append(len(path.read_text().splitlines()))

        monkeypatch.setattr(ledger_module.os, "fsync", fsync)
        ledger = Ledger(path)
        for number in range(3):
            await ledger.append(self.entry(number))
            assert synced[-1] == number + 1
        await ledger.close()

    async def test_entries_that_come_together_share_a_sync_and_none_is_lost(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        syncs = 0
        real = ledger_module.os.fsync

        def fsync(file: int) -> None:
            nonlocal syncs
            syncs += 1
            real(file)

        monkeypatch.setattr(ledger_module.os, "fsync", fsync)
        ledger = Ledger(tmp_path / "ledger.jsonl")
        await asyncio.gather(*(ledger.append(self.entry(number)) for number in range(500)))
        await ledger.close()
        assert {line["provider_message_id"] for line in kept(tmp_path)} == {str(number) for number in range(500)}
        assert syncs < 10

    async def test_a_full_disk_is_told_to_everyone_who_waits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        ledger = Ledger(tmp_path / "ledger.jsonl")
        monkeypatch.setattr(ledger_module.os, "fsync", full)
        given = await asyncio.gather(*(ledger.append(self.entry(n)) for n in range(5)), return_exceptions=True)
        assert [type(error) for error in given] == [OSError] * 5
        assert ledger.accepted.total() == 0
        await ledger.close()

    async def test_a_second_run_appends(self, tmp_path: Path) -> None:
        for number in range(2):
            ledger = Ledger(tmp_path / "ledger.jsonl")
            await ledger.append(self.entry(number))
            await ledger.close()
        assert len(kept(tmp_path)) == 2
