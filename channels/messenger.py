"""Facebook Messenger messages of a page. https://developers.facebook.com/docs/messenger-platform

Used by the delivery engine and the receipts endpoint.
"""

from __future__ import annotations

from channels import graph
from channels.base import Option
from channels.graph_messages import SendApi
from channels.rates import Rate, Rates

TEXT_LIMIT = 2000


class Messenger(SendApi):
    """Meta takes no key of ours, and nothing of ours comes back: a request without an answer stays in doubt."""

    name = "messenger"
    channels = ("messenger",)
    sender = "page_id"
    #: https://developers.facebook.com/docs/messenger-platform/overview/rate-limiting, for text
    usual_rates = Rates(Rate(300))
    options = (
        Option("page_id", "the id of the page that writes, digits", required=True),
        graph.TOKEN,
        graph.APP_SECRET,
        graph.VERIFY_TOKEN,
        graph.BASE_URL,
    )

    @classmethod
    def text_fault(cls, text: str) -> str:
        """2,000 characters."""
        return f"must have at most {TEXT_LIMIT:,} characters" if len(text) > TEXT_LIMIT else ""
