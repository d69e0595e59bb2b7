"""Instagram messages of a professional account. https://developers.facebook.com/docs/instagram-platform

Used by the delivery engine and the receipts endpoint.
"""

from __future__ import annotations

from dataclasses import replace

from channels import graph
from channels.base import Option
from channels.graph_messages import SendApi
from channels.rates import Rate, Rates

TEXT_LIMIT = 1000


class Instagram(SendApi):
    """Meta takes no key of ours, and nothing of ours comes back: a request without an answer stays in doubt. Instagram tells of
    reading and not of delivery."""

    name = "instagram"
    channels = ("instagram",)
    reads = True
    sender = "instagram_id"
    #: https://developers.facebook.com/docs/messenger-platform/overview/rate-limiting, for text
    usual_rates = Rates(Rate(300))
    options = (
        Option("instagram_id", "the id of the professional account that writes, digits", required=True),
        graph.TOKEN,
        graph.APP_SECRET,
        graph.VERIFY_TOKEN,
        replace(graph.BASE_URL, default=f"https://graph.instagram.com/{graph.VERSION}"),
    )

    @classmethod
    def text_fault(cls, text: str) -> str:
        """1,000 bytes of UTF-8, not characters."""
        return (
            f"must have at most {TEXT_LIMIT:,} bytes as UTF-8"
            if len(text.encode(errors="replace")) > TEXT_LIMIT
            else ""
        )
