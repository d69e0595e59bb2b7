"""How a rate is written, and which one an account keeps."""

from __future__ import annotations

import pytest

from channels.base import InvalidOption
from channels.rates import InvalidRate, Rate, Rates, parse
from channels.registry import provider_class, providers
from channels.telegram import Telegram

TOKEN = {"token": "1000000:simulated"}


@pytest.mark.parametrize(
    ("text", "interval"),
    [("80/s", 1 / 80), ("1/6s", 6.0), ("15/15m", 60.0), (" 2 / 0.5 s ", 0.25), ("1440/d", 60.0), ("3/h", 1200.0)],
)
def test_a_rate_is_messages_in_a_time(text: str, interval: float) -> None:
    found = parse(text)
    assert found is not None
    assert found.interval == pytest.approx(interval)
    assert parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "80", "80/", "/s", "0/s", "1/0s", "-1/s", "1/s/s", "80/week", "٣/s", "1e3/s"])
def test_what_is_no_rate_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(InvalidRate, match="1/6s"):
        parse(text)


def test_an_account_keeps_the_vendors_rates_unless_told_otherwise() -> None:
    assert Telegram.rates(TOKEN) == Rates(Rate(30), Rate(1))
    assert Telegram.rates({**TOKEN, "rate": "1000/s", "recipient_rate": "none"}) == Rates(Rate(1000), None)


@pytest.mark.parametrize("option", ["rate", "recipient_rate"])
def test_a_wrong_rate_is_refused_at_the_door_by_its_name(option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Telegram.check({**TOKEN, option: "fast"})
    assert refused.value.name == option


def test_every_provider_takes_rates() -> None:
    for channel, name in providers():
        cls = provider_class(channel, name)
        assert cls.rates({"rate": "7/s"}).account == Rate(7), name
