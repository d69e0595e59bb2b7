"""Slack messages by a bot's token. https://docs.slack.dev/reference/methods/chat.postMessage

Used by the delivery engine. Slack answers 200 for nearly everything; ``error`` in the body says what happened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from channels import rules
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.codes import Codes
from channels.http import HttpClient, HttpResponse
from channels.rates import Rate, Rates

#: Longer texts are cut off by Slack without a word: https://docs.slack.dev/reference/methods/chat.postMessage#truncating
TEXT_LIMIT = 40_000
BLOCKS_LIMIT = 50
_TOKEN = re.compile(r"xox[abp]-[A-Za-z0-9-]{10,250}")
_RULES: dict[str, rules.Rule] = {
    "blocks": rules.a(list, "a list of blocks"),
    "thread_ts": rules.text,
    "reply_broadcast": rules.FLAG,
    "mrkdwn": rules.FLAG,
    "unfurl_links": rules.FLAG,
    "unfurl_media": rules.FLAG,
}

CODES = Codes(
    "https://docs.slack.dev/reference/methods/chat.postMessage#errors",
    {
        Throttled: {
            "ratelimited": "Slack takes about one message a second into a conversation",
            "rate_limited": "Slack takes about one message a second into a conversation",
            "message_limit_exceeded": "members of this workspace have posted too much today",
        },
        # internal_error and fatal_error may have posted it, says Slack's page.
        Transient: {
            "internal_error": "Slack broke; it may have been posted",
            "fatal_error": "Slack broke; it may have been posted",
            "service_unavailable": "Slack is away for a moment",
            "request_timeout": "Slack did not get the whole request",
            "team_added_to_org": "the workspace is being moved; it comes back",
        },
        RecipientRefused: {
            "channel_not_found": "there is no such conversation, or the bot cannot see it",
            "is_archived": "the conversation is archived",
            "not_in_channel": "the bot is not in the conversation; somebody must invite it",
            "user_not_found": "there is no such user",
            "user_disabled": "the user's account is closed",
            "cannot_dm_bot": "bots cannot be written to",
            "messages_tab_disabled": "the app takes no messages: switch its messages tab on",
            "restricted_action": "the workspace lets only some members post here",
            "restricted_action_read_only_channel": "the conversation is read-only",
            "restricted_action_thread_only_channel": "only threads may be posted to here",
            "restricted_action_non_threadable_channel": "threads are not allowed here",
        },
        ContentRefused: {
            "no_text": "it is empty",
            "msg_too_long": "it is too long",
            "msg_blocks_too_long": "its blocks are too long",
            "too_many_attachments": "it has more than 100 attachments",
            "too_many_contact_cards": "it has too many contact cards",
            "invalid_blocks": "its blocks are not what Slack takes",
            "invalid_blocks_format": "its blocks are no list of blocks",
            "invalid_arguments": "an option is not what Slack takes",
            "invalid_json": "its JSON is not what Slack takes",
            "invalid_metadata_format": "its metadata are not what Slack takes",
            "attachment_payload_limit_exceeded": "its attachments are too large",
            "cannot_reply_to_message": "this message cannot be answered",
            "thread_not_found": "there is no such thread",
        },
        Misconfigured: {
            "not_authed": "no token came with the request",
            "invalid_auth": "the token is not valid",
            "account_inactive": "the bot or its workspace was deleted",
            "token_revoked": "the token was revoked; install the app again",
            "token_expired": "the token has expired",
            "missing_scope": "the app lacks the scope chat:write; add it and install the app again",
            "no_permission": "the token may not do this",
            "not_allowed_token_type": "a bot's token (xoxb-) is needed",
            "org_login_required": "the workspace is being moved to an organisation",
            "ekm_access_denied": "an administrator has suspended posting",
            "access_denied": "the token may not do this",
            "team_access_not_granted": "the token may not reach this workspace",
        },
    },
)


class Slack(Provider):
    """Slack takes no key of ours and sends no receipts: a request without an answer stays in doubt."""

    name = "slack"
    channels = ("slack",)
    #: https://docs.slack.dev/apis/web-api/rate-limits, for chat.postMessage
    usual_rates = Rates(recipient=Rate(1))
    options = (
        Option("token", "the bot's token (xoxb-...), with the scope chat:write", required=True, secret=True),
        Option("base_url", "where the API is", default="https://slack.com/api"),
    )
    message_options = {
        "blocks": "blocks of Block Kit, up to 50; the text is then what notifications show",
        "thread_ts": "the message to answer in its thread",
        "reply_broadcast": "true to show an answer in the conversation too",
        "mrkdwn": "false to take the text as it is",
        "unfurl_links": "true to show what links lead to",
        "unfurl_media": "false to show no media of links",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/chat.postMessage"
        self._headers = {
            "Authorization": f"Bearer {settings['token']}",
            "Content-Type": "application/json; charset=utf-8",
        }

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; a token that is none of Slack's would only be refused for each message."""
        checked = super().check(settings)
        if not _TOKEN.fullmatch(checked["token"]):
            raise InvalidOption("token", "must be a token of Slack's (xoxb-...)")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Slack takes 1 to 40,000 characters of text, and up to 50 blocks."""
        refused = super().refuse(outbound) | _faults(outbound)
        if not outbound.text:
            refused["text"] = "must not be empty: it is what notifications show; Slack has no HTML part"
        elif len(outbound.text) > TEXT_LIMIT:
            refused["text"] = f"must have at most {TEXT_LIMIT:,} characters; Slack would cut the rest off"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Post it. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        response = await self.http.request(
            "POST",
            self._url,
            headers=self._headers,
            body=json.dumps(
                {"channel": outbound.to, "text": outbound.text, **rules.given(outbound.options, _RULES)}
            ).encode(),
            timeout=self.call_seconds,
        )
        if response.status == 429 or not is_success(response):
            raise self._error(response, str(json_error(response).get("error", "")))
        answer = json_object(response)
        if answer.get("ok") is False and isinstance(answer.get("error"), str):
            raise self._error(response, answer["error"])
        where, stamp = answer.get("channel"), answer.get("ts")
        if answer.get("ok") is not True or not isinstance(where, str) or not isinstance(stamp, str):
            raise unreadable(response)
        return Accepted(f"{where}:{stamp}")

    def _error(self, response: HttpResponse, code: str) -> SendError:
        wait = retry_after(response.headers)
        if response.status == 429:
            return Throttled(code or "http_429", "Slack asks to wait", retry_after=wait, scope=Scope.RECIPIENT)
        known = CODES.error(code, retry_after=wait)
        if known is not None:
            return known
        said = self.redact(code)
        # A refusal with 200 that is in no table: Slack did not post it, and would not the next time either.
        return (
            ContentRefused(code or "refused", f"Slack refused it: {said}")
            if is_success(response)
            else by_status(response, said, code)
        )


def _faults(outbound: Outbound) -> dict[str, str]:
    found = rules.faults(outbound.options, _RULES)
    blocks = outbound.options.get("blocks")
    if isinstance(blocks, list) and len(blocks) > BLOCKS_LIMIT:
        found["options.blocks"] = f"must have at most {BLOCKS_LIMIT} blocks"
    return found
