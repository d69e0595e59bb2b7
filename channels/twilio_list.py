"""Reading Twilio's list of messages: has it a message whose answer never came? Used by the Twilio provider.

Twilio has no reference of ours to ask by. What it shows of a message is its recipient, its text and when it was made, so
the answer is certain only where at most one message fits and the whole list was seen.
https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from channels.base import Accepted, InDoubt, Outbound

#: So many texts of usual length fit into what is read of one answer; where they do not, the list cannot be read.
PAGE_SIZE = 20
PAGES = 10
#: By so much our clock and Twilio's may differ.
CLOCKS = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Listed:
    """One message of the list."""

    sid: str
    body: str
    status: str
    made_at: datetime


def read(page: Mapping[str, Any]) -> tuple[list[Listed], str]:
    """The outgoing messages of a page and the path of the next one, empty on the last. Raises ``InDoubt``."""
    try:
        found = [
            Listed(str(row["sid"]), str(row["body"]), str(row["status"]), parsedate_to_datetime(row["date_created"]))
            for row in page["messages"]
            if str(row["direction"]).startswith("outbound")
        ]
        following = page.get("next_page_uri") or ""
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InDoubt("unreadable_list", "the list of messages is not what Twilio documents") from None
    if not isinstance(following, str) or (following and not following.startswith("/2010-04-01/")):
        raise InDoubt("unreadable_list", "the list goes on at an address that is not Twilio's")
    return found, following


def judge(listed: Iterable[Listed], outbound: Outbound, since: datetime, *, text_may_differ: bool) -> Accepted | None:
    """The one message that is ``outbound``; None where none can be. Raises ``InDoubt`` where that is not certain.

    ``text_may_differ``: Twilio makes the text itself, or may write some characters otherwise than we did.
    """
    recent = [each for each in listed if _aware(each.made_at) >= since - CLOCKS]
    same = [each for each in recent if each.body == outbound.text]
    if len(same) > 1:
        raise InDoubt("several_fit", f"{len(same)} messages to this recipient have this text")
    if same and not outbound.options.get("content_sid"):
        return Accepted(same[0].sid, f"found in the list of messages as {same[0].status}"[:500])
    if recent and (text_may_differ or any(outbound.text in each.body for each in recent)):
        raise InDoubt("text_differs", f"{len(recent)} messages to this recipient may be this one with another text")
    return None


def _aware(at: datetime) -> datetime:
    """Twilio names GMT as +0000; as -0000 (RFC 5322: no zone known) it would be read as a naive time."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)
