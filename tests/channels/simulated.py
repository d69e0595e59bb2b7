"""The real providers with their vendors played by the simulator, and messages that ask it for a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from channels.base import (
    ContentRefused,
    InDoubt,
    Misconfigured,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.email_smtp import Smtp
from channels.http import HttpClient
from channels.simulator.faults import FAULTS, addresses
from channels.simulator.server import Running
from channels.telegram import Telegram
from channels.twilio import Twilio
from channels.webhook import Webhook

FAILS: dict[str, type[SendError]] = {
    "throttle": Throttled,
    "always_throttle": Throttled,
    "timeout_before": InDoubt,
    "timeout_after": InDoubt,
    "reset": InDoubt,
    "reset_after": InDoubt,
    "server_error": Transient,
    "reject": RecipientRefused,
    "reject_content": ContentRefused,
    "auth": Misconfigured,
    "rubbish": InDoubt,
}


def provider(channel: str, simulator: Running, http: HttpClient) -> Provider:
    """The account of ``channel`` at the simulator."""
    base = simulator.url
    made: Provider = {
        "sms": lambda: Twilio(
            Twilio.check(
                {
                    "account_sid": "AC" + "0" * 32,
                    "auth_token": "simulated",
                    "from_number": "+1",
                    "base_url": f"{base}/twilio",
                }
            ),
            http,
        ),
        "telegram": lambda: Telegram(
            Telegram.check({"token": "1000000:simulated", "base_url": f"{base}/telegram"}), http
        ),
        "webhook": lambda: Webhook(
            Webhook.check({"secret": "whsec_" + "c2VjcmV0" * 4, "base_url": f"{base}/webhook"}), http
        ),
        "email": lambda: Smtp(
            Smtp.check(
                {
                    "host": simulator.host,
                    "port": str(simulator.smtp_port),
                    "security": "none",
                    "from": "hello@shop.example",
                }
            ),
            http,
        ),
    }[channel]()
    made.call_seconds = 5.0
    return made


def numbered(number: int) -> str:
    """A message's id."""
    return str(UUID(int=(7 << 76) | (2 << 62) | number))


def message(channel: str, word: str, number: int = 1, **more: Any) -> Outbound:
    """A message whose recipient asks for the fault ``word``."""
    to = addresses(FAULTS[word])["sms, whatsapp" if channel == "sms" else channel]
    return Outbound(
        **{"message_id": numbered(number), "channel": channel, "to": to, "text": f"{word} {number}", **more}
    )


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    """The ledger's lines."""
    return [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
