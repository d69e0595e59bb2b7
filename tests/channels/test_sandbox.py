"""The sandbox: accepts everything, and fails as the recipient asks, without a wire."""

from __future__ import annotations

import time

import pytest

from channels.base import (
    Accepted,
    InvalidOption,
    Outbound,
    SendError,
    Throttled,
)
from channels.media import MEDIA
from channels.sandbox import Sandbox
from channels.simulator.faults import FAULTS, addresses
from tests.channels.contract import MESSAGE_ID, ProviderContract
from tests.channels.simulated import FAILS


class TestSandbox(ProviderContract):
    provider = Sandbox
    channel = "sms"
    to = "+56912345678"
    settings = {"latency_ms": "0"}

    async def reaches_the_wire(self, outbound: Outbound) -> None:
        """There is none."""
        assert isinstance(await self.made().send(outbound), Accepted)

    def test_a_message_option_it_does_not_know_is_refused_at_the_door(self) -> None:
        """It stands in for every provider, so it takes the options of all."""
        assert Sandbox.refuse(self.outbound(options={"media_url": "https://shop.example/1.jpg"})) == {}

    def test_it_serves_every_channel(self) -> None:
        assert set(Sandbox.channels) == set(MEDIA)

    async def test_an_ordinary_message_is_accepted_at_once(self) -> None:
        accepted = await self.made().send(self.outbound())
        assert accepted.provider_message_id == f"sandbox:{MESSAGE_ID}"

    @pytest.mark.parametrize("word", FAULTS)
    @pytest.mark.parametrize("channel", ["sms, whatsapp", "email", "telegram", "webhook", "others"])
    async def test_every_fault_of_the_table_is_had_by_its_address(self, word: str, channel: str) -> None:
        message = self.outbound(to=addresses(FAULTS[word])[channel])
        if word not in FAILS:
            assert isinstance(await self.made().send(message), Accepted)
            return
        with pytest.raises(SendError) as caught:
            await self.made().send(message)
        assert type(caught.value) is FAILS[word]

    @pytest.mark.parametrize(
        ("word", "passes"), [("throttle", True), ("server_error", True), ("always_throttle", False)]
    )
    async def test_what_fails_once_passes_the_second_time(self, word: str, passes: bool) -> None:
        message = self.outbound(to=addresses(FAULTS[word])["email"], attempt=2)
        if passes:
            await self.made().send(message)
        else:
            with pytest.raises(Throttled):
                await self.made().send(message)

    async def test_latency_is_as_long_as_the_account_says(self) -> None:
        begun = time.monotonic()
        await self.made(latency_ms="80").send(self.outbound())
        assert time.monotonic() - begun >= 0.07

    @pytest.mark.parametrize("latency", ["-1", "1.5", "ten", "10001", "\u0661"])
    def test_a_latency_that_is_none_is_refused(self, latency: str) -> None:
        with pytest.raises(InvalidOption, match="latency_ms"):
            Sandbox.check({"latency_ms": latency})
