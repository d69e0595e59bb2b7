"""`manage.py smpp`: the SMPP gateway, for those who have an account at an SMSC."""

from __future__ import annotations

import asyncio
import signal
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError

from channels.smpp_gateway.server import running
from deliveries.management.command import Command as Base
from deliveries.management.smpp_accounts import Reader


class Command(Base):
    help = "Hold the connections of all SMPP accounts, and take their messages from the workers. One runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--listen",
            type=_address,
            default="127.0.0.1:8377",
            metavar="HOST:PORT",
            help="where workers reach it, their accounts' base_url",
        )

    def handle(self, *args: Any, listen: tuple[str, int], **options: Any) -> None:
        try:
            asyncio.run(self._serve(*listen))
        except OSError as error:
            raise CommandError(f"the SMPP gateway cannot start: {error}. Choose another --listen") from error

    async def _serve(self, host: str, port: int) -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with running(Reader(), host=host, port=port) as started:
            self.say(f"The SMPP gateway listens on {started.url}.")
            await stopping.wait()
        self.say("The SMPP gateway has stopped.")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return host, int(port)
