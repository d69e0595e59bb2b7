"""`manage.py relay`: the relay process."""

from __future__ import annotations

import signal
from typing import Any

from deliveries.management.command import Command as Base
from deliveries.relay import Relay


class Command(Base):
    help = "Ring for what is due and nobody takes, sweep, apply receipts, make callbacks. Any number may run."

    def handle(self, *args: Any, **options: Any) -> None:
        relay = Relay()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: relay.stopping.set())
        self.say("The relay runs.")
        relay.run()
        self.say("The relay has stopped.")
