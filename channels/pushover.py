"""Push messages through Pushover. https://pushover.net/api

Used by the delivery engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from channels import rules
from channels.answers import by_status, is_success, json_error, json_object, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
)
from channels.http import HttpClient, HttpResponse

TEXT_LIMIT, TITLE_LIMIT = 1024, 250
_EMERGENCY = 2
#: What Pushover says where the month's messages are spent: an operator must buy more.
_SPENT = re.compile("quota|monthly", re.I)
_USER = re.compile(r"[A-Za-z0-9]{30}")
_RULES: dict[str, rules.Rule] = {
    "priority": rules.whole(-2, _EMERGENCY),
    "retry": rules.whole(30, 10_800),
    "expire": rules.whole(30, 10_800),
    "sound": rules.text,
    "url": rules.text,
    "url_title": rules.text,
    "device": rules.text,
    "ttl": rules.whole(1, 31_536_000),
}


class Pushover(Provider):
    """Pushover takes no key of ours and sends no receipts: a request without an answer stays in doubt. It wants no more than two
    connections at a time."""

    name = "pushover"
    channels = ("push",)
    window = 2
    options = (
        Option("token", "the application's API token", required=True, secret=True),
        Option("base_url", "where the API is", default="https://api.pushover.net"),
    )
    message_options = {
        "priority": "-2 (no alert) to 2 (repeated until somebody acknowledges it, with retry and expire)",
        "retry": "with priority 2: repeated every so many seconds, 30 at least",
        "expire": "with priority 2: for so many seconds, 10,800 at most",
        "sound": "the name of a sound",
        "url": "a link below the text",
        "url_title": "what the link is called",
        "device": "one of the user's devices instead of all",
        "ttl": "seconds after which it disappears from the devices",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/1/messages.json"

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """1 to 1,024 characters of text or HTML, up to 250 of title."""
        refused = super().refuse(outbound) | _faults(outbound)
        if not 0 < len(outbound.html or outbound.text) <= TEXT_LIMIT:
            refused["html" if outbound.html else "text"] = f"must have 1 to {TEXT_LIMIT:,} characters"
        if len(outbound.subject) > TITLE_LIMIT:
            refused["subject"] = f"must have at most {TITLE_LIMIT} characters"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Push to the user or group ``to``. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        response = await self.http.request(
            "POST",
            self._url,
            headers={"Content-Type": "application/json"},
            body=json.dumps({"token": self.settings["token"], **_request(outbound)}).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response)
        answer = json_object(response)
        if answer.get("status") != 1 or not isinstance(answer.get("request"), str):
            raise unreadable(response)
        return Accepted(answer["request"])

    def _error(self, response: HttpResponse) -> SendError:
        answer = json_error(response)
        errors = answer.get("errors")
        said = self.redact("; ".join(map(str, errors)) if isinstance(errors, list) else "")
        code = f"http_{response.status}"
        if response.status == 429 and _SPENT.search(said):
            return Misconfigured("monthly_limit", f"the application's messages of this month are spent: {said}")
        if response.status == 400:
            return _refusal(answer, said)
        return by_status(response, said, code)


def _refusal(answer: Mapping[str, Any], said: str) -> SendError:
    """The answer names the parameter that it refuses, as in ``"user": "invalid"``."""
    if "token" in answer:
        return Misconfigured("token", f"{said}; is it the token of an application?")
    if "user" in answer or "device" in answer:
        return RecipientRefused("user" if "user" in answer else "device", said)
    return ContentRefused("http_400", said)


def _request(outbound: Outbound) -> dict[str, Any]:
    fields = {"user": outbound.to, "message": outbound.html or outbound.text, "title": outbound.subject}
    marked = {"html": 1} if outbound.html else {}
    return {name: value for name, value in fields.items() if value} | marked | rules.given(outbound.options, _RULES)


def _faults(outbound: Outbound) -> dict[str, str]:
    found = rules.faults(outbound.options, _RULES)
    if not _USER.fullmatch(outbound.to):
        found["to"] = "must be a user or group key of 30 letters and digits"
    if outbound.options.get("priority") == _EMERGENCY:
        missing = [name for name in ("retry", "expire") if not outbound.options.get(name)]
        found |= {f"options.{name}": "is needed with priority 2" for name in missing}
    return found
