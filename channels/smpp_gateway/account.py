"""An account as the gateway has it, and how long the gateway waits for what.

Made by `manage.py smpp` from the database, used by everything of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from channels.smpp_gateway.exchange import account_key


@dataclass(frozen=True)
class GatewayAccount:
    """``settings`` are the checked options and secrets of an account at ``smpp``; ``id`` is what logs call it."""

    id: int
    settings: Mapping[str, str] = field(repr=False)
    receipts_url: str

    @cached_property
    def key(self) -> str:
        """What workers call it."""
        return account_key(self.settings, self.receipts_url)

    @property
    def login(self) -> tuple[str, str, str]:
        """What the SMSC knows it by."""
        return self.settings["host"].lower(), self.settings["port"], self.settings["system_id"]

    @property
    def binds(self) -> int:
        """How many connections it holds."""
        return int(self.settings["binds"])

    @property
    def window(self) -> int:
        """How many messages may wait for their answer on each."""
        return int(self.settings["window"])


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds. After a failure the wait doubles, up to the most; a message that wants out ends it after the least."""

    connect: float = 5.0
    #: For the answer to anything but a message.
    answer: float = 10.0
    enquire: float = 30.0
    #: An answer to a message that comes later than this is not known any more.
    late: float = 60.0
    again: float = 1.0
    again_least: float = 3.0
    again_most: float = 60.0
    #: After a refused login: vendors lock out who keeps trying.
    refused: float = 30.0
    refused_most: float = 600.0
    #: A bind that ends sooner counts as a failure.
    steady: float = 10.0
    #: For Chaski to store what was delivered; less than any SMSC waits.
    report: float = 8.0
    #: For what is under way when the gateway stops, or the account changes.
    ending: float = 5.0


USUAL = Patience()
