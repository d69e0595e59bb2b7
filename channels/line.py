"""LINE messages by the Messaging API. https://developers.line.biz/en/reference/messaging-api/#send-push-message

Used by the delivery engine. LINE takes our key and delivers one message for it, for a day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from channels import rules
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
    Throttled,
)
from channels.http import HttpClient, HttpResponse

TEXT_LIMIT = 5000
MESSAGES_LIMIT = 5
_RULES: dict[str, rules.Rule] = {
    "messages": rules.a(list, "a list of messages"),
    "notification_disabled": rules.FLAG,
    "custom_aggregation_units": rules.a(list, "a list of names"),
}
#: What LINE says where the month's messages are spent: an operator must buy more.
_SPENT = re.compile("monthly limit", re.I)
#: And where it is the recipient that is wrong.
_RECIPIENT = re.compile(r"'to'|invalid user|not a friend|failed to send", re.I)
_ALREADY = 409


class Line(Provider):
    """LINE knows our key (``X-Line-Retry-Key``) for a day. It sends no receipts; whoever has blocked the account gets nothing,
    and LINE does not say so."""

    name = "line"
    channels = ("line",)
    idempotent = True
    options = (
        Option("token", "the channel access token", required=True, secret=True),
        Option("base_url", "where the API is", default="https://api.line.me"),
    )
    message_options = {
        "messages": "up to 5 messages as the Messaging API has them (images, stickers, flex), instead of the text",
        "notification_disabled": "true to deliver without a sound",
        "custom_aggregation_units": "the name under which LINE's statistics count it",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/v2/bot/message/push"
        self._headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json"}

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """LINE takes 1 to 5,000 characters of text, or up to 5 messages of its own form."""
        refused = super().refuse(outbound) | _faults(outbound)
        if outbound.options.get("messages"):
            refused.pop("text", None)
        elif not 0 < len(outbound.text) <= TEXT_LIMIT:
            refused["text"] = f"must have 1 to {TEXT_LIMIT:,} characters; LINE has no HTML part"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Push it. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        response = await self.http.request(
            "POST",
            self._url,
            headers={**self._headers, "X-Line-Retry-Key": outbound.message_id},
            body=json.dumps(_request(outbound)).encode(),
            timeout=self.call_seconds,
        )
        if response.status == _ALREADY and "x-line-accepted-request-id" in response.headers:
            return Accepted(response.headers["x-line-accepted-request-id"], "LINE had it already")
        if not is_success(response):
            raise self._error(response)
        sent = json_object(response).get("sentMessages")
        if not isinstance(sent, list) or not sent or not isinstance(sent[0], dict) or "id" not in sent[0]:
            raise unreadable(response)
        return Accepted(str(sent[0]["id"]))

    def _error(self, response: HttpResponse) -> SendError:
        answer = json_error(response)
        said = self.redact(_words(answer))
        code = f"http_{response.status}"
        if response.status == 429:
            if _SPENT.search(said):
                return Misconfigured("monthly_limit", f"the month's messages are spent: {said}")
            return Throttled(code, said, retry_after=retry_after(response.headers))
        if response.status == 400:
            return RecipientRefused(code, said) if _RECIPIENT.search(said) else ContentRefused(code, said)
        if response.status in (401, 403):
            return Misconfigured(code, f"{said}; is the channel access token right?")
        return by_status(response, said, code)


def _request(outbound: Outbound) -> dict[str, Any]:
    messages = outbound.options.get("messages") or [{"type": "text", "text": outbound.text}]
    names = {
        "notification_disabled": "notificationDisabled",
        "custom_aggregation_units": "customAggregationUnits",
    }
    given = {theirs: outbound.options[ours] for ours, theirs in names.items() if outbound.options.get(ours) is not None}
    return {"to": outbound.to, "messages": messages, **given}


def _words(answer: Mapping[str, Any]) -> str:
    """``message`` and what ``details`` say of single fields."""
    details = answer.get("details")
    parts = [str(answer.get("message", ""))]
    for each in details if isinstance(details, list) else []:
        if isinstance(each, dict):
            parts.append(f"{each.get('property', '')} {each.get('message', '')}".strip())
    return "; ".join(part for part in parts if part)


def _faults(outbound: Outbound) -> dict[str, str]:
    found = rules.faults(outbound.options, _RULES)
    messages = outbound.options.get("messages")
    if isinstance(messages, list) and not 0 < len(messages) <= MESSAGES_LIMIT:
        found["options.messages"] = f"must hold 1 to {MESSAGES_LIMIT} messages"
    return found
