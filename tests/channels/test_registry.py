"""Which providers exist, and that each is held to the contract."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import channels
from channels.media import MEDIA
from channels.registry import UnknownProvider, provider_class, providers
from tests.channels.contract import ProviderContract


def contracts(cls: type[ProviderContract] = ProviderContract) -> Iterator[type[ProviderContract]]:
    """Every test class that a provider is named in."""
    for child in cls.__subclasses__():
        if "provider" in child.__dict__:
            yield child
        yield from contracts(child)


def test_every_provider_has_a_test_that_inherits_the_contract() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.channels.{file.stem}")
    tested = {cls.provider for cls in contracts()}
    assert set(providers().values()) <= tested


def test_the_channels_of_the_first_run_have_a_vendor_and_every_channel_has_the_sandbox() -> None:
    known = providers()
    assert {("email", "smtp"), ("sms", "twilio"), ("telegram", "telegram"), ("webhook", "webhook")} <= set(known)
    assert {channel for channel, name in known if name == "sandbox"} == set(MEDIA)


def test_providers_serve_known_channels_under_one_word() -> None:
    for (channel, name), cls in providers().items():
        assert channel in MEDIA
        assert name == cls.name
        assert cls.__module__.startswith("channels.")


def test_no_two_providers_share_a_word() -> None:
    classes = set(providers().values())
    assert len({cls.name for cls in classes}) == len(classes)


def test_an_unknown_provider_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownProvider, match=r"no provider 'nobody' for channel 'sms'; there is sandbox, .*twilio"):
        provider_class("sms", "nobody")
    with pytest.raises(UnknownProvider, match="there is none"):
        provider_class("pigeon", "twilio")


def test_the_package_is_ours_and_not_one_of_the_same_name() -> None:
    assert Path(channels.__file__ or "").parent == Path(__file__).parents[2] / "channels"
