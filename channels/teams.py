"""Microsoft Teams messages through a workflow's webhook.

Used by the delivery engine. https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from channels import rules
from channels.answers import by_status, is_success, json_error, retry_after
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    SendError,
    Throttled,
)
from channels.codes import Codes
from channels.http import HttpClient, HttpResponse

SIZE_LIMIT = 28_000
_RULES: dict[str, rules.Rule] = {"card": rules.OBJECT}
CODES = Codes(
    "https://learn.microsoft.com/azure/logic-apps/logic-apps-limits-and-configuration",
    {
        Throttled: {
            "TooManyRequests": "the workflow is called too often",
            "WorkflowRunTooManyRequests": "too many runs",
        },
        ContentRefused: {
            "TriggerInputSchemaMismatch": "the card is not what the workflow takes",
            "InvalidRequestContent": "the card is not what the workflow takes",
            "RequestEntityTooLarge": "it is too large",
        },
        Misconfigured: {
            "DirectApiAuthorizationRequired": "the webhook's URL lacks its signature; copy the whole of it",
            "DirectApiRequestHasMoreThanOneAuthorization": "the workflow wants another kind of authorisation",
            "AuthorizationFailed": "the signature in the webhook's URL is not valid any more",
            "WorkflowNotFound": "there is no such workflow any more; make another and set the account's URL",
            "WorkflowTriggerIsNotEnabled": "the workflow is switched off",
        },
    },
)


class Teams(Provider):
    """A workflow accepts and posts later, and tells nobody when it could not: acceptance is all that can be known."""

    name = "teams"
    channels = ("teams",)
    options = (
        Option("base_url", "the workflow's webhook URL, whole: its end is a secret", required=True, secret=True),
    )
    message_options = {"card": "an Adaptive Card to show instead of the text"}

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the old connectors' addresses stopped working."""
        checked = super().check(settings)
        if "webhook.office.com" in checked["base_url"]:
            raise InvalidOption("base_url", "is an Office 365 connector's, which were switched off; make a workflow")
        return checked

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = settings["base_url"]

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """A text or a card, up to 28 KB as JSON."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if outbound.options.get("card"):
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: Teams takes a text or a card, no HTML"
        if not refused and len(_body(outbound)) > SIZE_LIMIT:
            refused["text"] = f"makes more than {SIZE_LIMIT:,} bytes"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Call the workflow. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        response = await self.http.request(
            "POST",
            self._url,
            headers={"Content-Type": "application/json"},
            body=_body(outbound),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response)
        return Accepted("", "the workflow was started; Teams does not tell whether it posted")

    def _error(self, response: HttpResponse) -> SendError:
        error = json_error(response).get("error")
        error = error if isinstance(error, dict) else {}
        code, said = str(error.get("code", "")), self.redact(str(error.get("message", "")))
        wait = retry_after(response.headers)
        if response.status == 429:
            return Throttled(code or "http_429", said, retry_after=wait)
        if code not in CODES and response.status in (404, 410):
            return Misconfigured(code or f"http_{response.status}", f"{said}; is the workflow still there?")
        return CODES.error(code, said, retry_after=wait) or by_status(response, said, code)


def _body(outbound: Outbound) -> bytes:
    title: list[dict[str, Any]] = (
        [{"type": "TextBlock", "text": outbound.subject, "weight": "bolder", "wrap": True}] if outbound.subject else []
    )
    card = outbound.options.get("card") or {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [*title, {"type": "TextBlock", "text": outbound.text, "wrap": True}],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return json.dumps({"type": "message", "attachments": [attachment]}).encode()
