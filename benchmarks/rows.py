"""The messages of the benchmarks: what a shop tells its customers, as a caller of the API gives them."""

from __future__ import annotations

from typing import Any


def row(number: int, channel: str = "sms", **fields: Any) -> dict[str, Any]:
    """Message ``number``."""
    to = {"sms": f"+5691{number % 10_000_000:07}", "telegram": str(1_000_000 + number)}
    to["email"] = f"customer-{number}@shop.example"
    text = f"Hola, tu pedido {number} va en camino y llega hoy entre las 15:00 y las 18:00."
    given = {"channel": channel, "to": to[channel], "text": text, "reference": f"order-{number}", **fields}
    return {**given, "subject": f"Tu pedido {number}"} if channel == "email" else given
