"""The request that every peer sends: an SMS through Twilio, as its documentation shows it."""

from __future__ import annotations

import base64
import os

SID, TOKEN = "AC" + "0" * 32, "benchmark"
URL = f"{os.environ.get('PROVIDER_URL', '')}/2010-04-01/Accounts/{SID}/Messages.json"
LOGIN = {"Authorization": "Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()}


def form(number: int) -> dict[str, str]:
    """Message ``number``."""
    return {
        "To": f"+5691{number:07}",
        "From": "+15005550006",
        "Body": f"Hola, tu pedido {number} va en camino y llega hoy entre las 15:00 y las 18:00.",
        "StatusCallback": f"https://shop.example/status?message={number}",
    }
