"""`manage.py simulator`: the provider simulator in the foreground."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from channels.simulator.server import HANG_SECONDS, running


class Command(BaseCommand):
    """Serves every provider's wire on one HTTP port and one SMTP port until it is interrupted."""

    help = "Play the providers: HTTP and SMTP servers with faults chosen by recipient or by seed."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Ports, ledger and faults."""
        ledger = Path(".chaski/simulator.jsonl")
        parser.add_argument("--port", type=int, default=8900, help="HTTP port (8900)")
        parser.add_argument("--smtp-port", type=int, default=8925, help="SMTP port (8925)")
        parser.add_argument("--ledger", type=Path, default=ledger, help=f"what was accepted ({ledger})")
        parser.add_argument("--seed", help="the same attempts fail in every run with --fault-rate")
        parser.add_argument("--fault-rate", type=_share, default=0.0, help="share that fails, 0 to 1")
        parser.add_argument("--hang", type=float, default=HANG_SECONDS, help="seconds of a hang (60)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until Ctrl-C."""
        try:
            asyncio.run(self._serve(options))
        except KeyboardInterrupt:
            return
        except OSError as error:
            text = f"The simulator cannot start: {error}. Choose another --port, --smtp-port or --ledger."
            raise CommandError(text) from error

    async def _serve(self, options: dict[str, Any]) -> None:
        simulator = running(
            options["ledger"],
            port=options["port"],
            smtp_port=options["smtp_port"],
            seed=options["seed"],
            fault_rate=options["fault_rate"],
            hang_seconds=options["hang"],
        )
        async with simulator as started:
            mail = f"smtp://{started.host}:{started.smtp_port}"
            self.stderr.write(f"Simulator on {started.url} and {mail}, ledger {options['ledger']}; Ctrl-C ends it")
            await asyncio.Event().wait()


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share
