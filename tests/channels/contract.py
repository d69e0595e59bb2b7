"""What every provider owes the delivery engine, whatever its wire: each provider's test inherits from here.

It needs no network and knows the provider only through `channels.base`; `http_contract` adds the wire.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.attachments import Attachment, Kind
from channels.base import (
    PACE,
    Forged,
    InboundRequest,
    InvalidOption,
    NotSent,
    Outbound,
    Provider,
    Receipt,
    Reply,
    Unreadable,
)
from channels.http import HttpClient
from channels.kept import MediaId, Upload

MESSAGE_ID = "0190a5b4-7c00-7000-8000-0123456789ab"

#: With halves of characters too: what Python makes of a byte of the command line that is not UTF-8, and JSON's escapes.
TEXT = st.text(max_size=30) | st.text(st.sampled_from("1a \udcf1\ud800"), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
#: Each subclass is a test of its own; hypothesis sees one function and must not replay one's examples on the other.
FUZZ = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.differing_executors])
FORMS = st.dictionaries(st.sampled_from(["x-twilio-signature", "webhook-id", "content-type"]) | st.text(), st.text())


TYPE_OF = {Kind.IMAGE: "image/png", Kind.VIDEO: "video/mp4", Kind.AUDIO: "audio/ogg", Kind.DOCUMENT: "application/pdf"}


async def read_nothing() -> bytes:
    """The bytes of a file that holds none."""
    return b""


def attachment(content_type: str, size: int = 1_000, name: str = "guía.bin") -> Attachment:
    """A file that a service uploaded."""
    return Attachment(name, content_type, f"https://chaski.example/files/token/{name}", size, read=read_nothing)


@dataclass
class Remembering:
    """A ``Keeper`` that one message at a time asks. ``fresh``: what it knows is new, and another would be no better."""

    media: MediaId | None = None
    fresh: bool = False

    async def uploaded(self, upload: Upload) -> str:
        """As ``Keeper`` has it."""
        if self.media is None:
            self.media = await upload()
        return self.media.id

    @asynccontextmanager
    async def first(self) -> AsyncIterator[str]:
        """As ``Keeper`` has it."""
        yield self.media.id if self.media else ""

    def learn(self, media: MediaId) -> None:
        """As ``Keeper`` has it."""
        self.media = media

    async def forget(self, media_id: str) -> bool:
        """As ``Keeper`` has it."""
        assert self.media is not None
        assert self.media.id == media_id
        self.media = self.media if self.fresh else None
        return not self.fresh


class Unused(HttpClient):
    """A client for what must not reach the network."""

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing may come here."""
        raise AssertionError("a request was made")


class ProviderContract:
    """A subclass names its provider and shows one good account and one good message."""

    provider: ClassVar[type[Provider]]
    channel: ClassVar[str]
    to: ClassVar[str]
    #: Options and secrets of a valid account.
    settings: ClassVar[Mapping[str, str]]
    #: What a message of this provider holds besides its text.
    message: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def made(cls, http: HttpClient | None = None, **changes: str) -> Provider:
        """The provider for the valid account with ``changes``."""
        return cls.provider(cls.provider.check({**cls.settings, **changes}), http or Unused())

    @classmethod
    def outbound(cls, **changes: Any) -> Outbound:
        """The good message with ``changes``."""
        fields = {"message_id": MESSAGE_ID, "channel": cls.channel, "to": cls.to, "text": "Your order is on its way."}
        return Outbound(**{**fields, **cls.message, **changes})

    def test_it_says_who_it_is(self) -> None:
        assert self.channel in self.provider.channels
        assert self.provider.name == self.provider.name.lower()
        assert inspect.getdoc(self.provider) != inspect.getdoc(Provider)

    def test_every_option_says_what_it_is_for(self) -> None:
        names = [option.name for option in self.provider.options]
        assert len(set(names)) == len(names)
        assert all(option.help for option in self.provider.options)
        assert all(self.provider.message_options.values())

    def test_a_valid_account_passes_and_gets_the_defaults(self) -> None:
        checked = self.provider.check(self.settings)
        assert set(checked) == {option.name for option in (*self.provider.options, *PACE)}
        assert all(checked[name] == value for name, value in self.settings.items())

    def test_a_checked_account_passes_again(self) -> None:
        checked = self.provider.check(self.settings)
        assert self.provider.check(checked) == checked

    def test_an_option_it_does_not_know_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidOption, match="no_such_option"):
            self.provider.check({**self.settings, "no_such_option": "1"})

    @pytest.mark.parametrize("value", [587, None, ["587"], {"a": "b"}, True, "contrase\udcf1a"])
    def test_a_value_that_is_no_text_is_refused_by_name(self, value: Any) -> None:
        for option in self.provider.options:
            with pytest.raises(InvalidOption) as caught:
                self.provider.check({**self.settings, option.name: value})
            assert caught.value.name == option.name
            assert "contrase" not in str(caught.value)

    def test_every_missing_option_is_refused_by_name(self) -> None:
        for option in self.provider.options:
            if option.required:
                with pytest.raises(InvalidOption) as caught:
                    self.provider.check({**self.settings, option.name: ""})
                assert caught.value.name == option.name

    @given(data=st.data())
    @settings(FUZZ, max_examples=60)
    def test_whatever_an_option_is_set_to_the_account_is_refused_or_can_be_used(self, data: st.DataObject) -> None:
        names = [option.name for option in self.provider.options if not option.name.endswith("_file")]
        if not names:
            return
        name = data.draw(st.sampled_from(names))
        try:
            checked = self.provider.check({**self.settings, name: data.draw(TEXT)})
        except InvalidOption:
            return
        self.provider(checked, Unused())

    def test_secrets_are_blanked_in_what_staff_sees(self) -> None:
        names = [option.name for option in self.provider.options if option.secret]
        secrets = [self.settings[name] for name in names if name in self.settings]
        text = self.made().redact(" and ".join(["kept", *secrets]))
        assert text.startswith("kept")
        assert not [secret for secret in secrets if secret in text]

    def test_a_call_ends_before_its_deadline_and_the_deadline_before_the_lease(self) -> None:
        assert self.provider.call_seconds < self.provider.deadline_seconds < self.provider.lease_seconds

    def test_an_ordinary_message_passes_the_door(self) -> None:
        assert self.provider.refuse(self.outbound()) == {}

    def test_an_empty_message_is_refused_at_the_door(self) -> None:
        assert "text" in self.provider.refuse(self.outbound(text="", html="", metadata={}))

    def test_a_file_is_taken_or_refused_at_the_door(self) -> None:
        takes = self.provider.takes
        for kind, content_type in TYPE_OF.items():
            refused = self.provider.refuse(self.outbound(text="", attachments=(attachment(content_type),)))
            assert ("attachments" not in refused) == (takes is not None and kind in takes.bytes_of), kind

    def test_a_file_that_is_too_large_or_one_too_many_is_refused_at_the_door(self) -> None:
        takes = self.provider.takes
        if takes is None or self.provider.name == "sandbox":
            return
        for kind, limit in takes.bytes_of.items():
            large = attachment(TYPE_OF[kind], size=limit + 1)
            assert "attachments" in self.provider.refuse(self.outbound(text="", attachments=(large,)))
        many = (attachment(TYPE_OF[next(iter(takes.bytes_of))], size=1),) * (takes.count + 1)
        assert "attachments" in self.provider.refuse(self.outbound(text="", attachments=many))

    def test_a_message_option_it_does_not_know_is_refused_at_the_door(self) -> None:
        refused = self.provider.refuse(self.outbound(options={"no_such_option": 1}))
        assert "no_such_option" in refused["options"]

    @given(data=st.data())
    @settings(FUZZ, max_examples=100)
    def test_whatever_a_message_option_holds_it_is_refused_or_becomes_a_request(self, data: st.DataObject) -> None:
        known = sorted(self.provider.message_options)
        names = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        outbound = self.outbound(options={name: data.draw(JSON) for name in names})
        refused = self.provider.refuse(outbound)
        assert all(isinstance(reason, str) and reason for reason in refused.values())
        if not refused:
            asyncio.run(self.reaches_the_wire(outbound))

    async def reaches_the_wire(self, outbound: Outbound) -> None:
        """An exception that is no ``SendError`` would count as in doubt, though nothing had left."""
        provider = self.made(Offline())
        provider.call_seconds = 1.0
        with pytest.raises(NotSent):
            await provider.send(outbound)
        await provider.close()

    @given(body=st.binary(max_size=200), headers=FORMS, query=FORMS, method=st.sampled_from(["GET", "POST"]))
    @settings(FUZZ, max_examples=100)
    def test_whatever_is_posted_to_it_is_forged(
        self, body: bytes, headers: dict[str, str], query: dict[str, str], method: str
    ) -> None:
        request = InboundRequest(method, "https://chaski.example/receipts/1?message=2", headers, query, body)
        with pytest.raises(Forged):
            self.made().verify(request)

    @given(body=st.binary(max_size=200), query=FORMS, method=st.sampled_from(["GET", "POST"]))
    @settings(FUZZ, max_examples=100)
    def test_whatever_is_parsed_gives_receipts_or_is_unreadable(
        self, body: bytes, query: dict[str, str], method: str
    ) -> None:
        request = InboundRequest(method, "https://chaski.example/receipts/1", {}, query, body)
        try:
            found = self.made().parse(request)
        except Unreadable:
            return
        assert all(isinstance(each, (Receipt, Reply)) and each.event_id for each in found)
        assert self.provider.receipts or self.provider.replies

    def test_it_can_be_closed_without_having_been_used(self) -> None:
        asyncio.run(self.made().close())


class Offline(HttpClient):
    """A client whose network is away."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"", **_: Any) -> Any:
        """What is given must be fit for a wire, which is not there."""
        assert all("\n" not in name + value and "\r" not in name + value for name, value in headers.items())
        assert isinstance(body, bytes)
        raise NotSent("refused")
