"""Discord messages by a bot. https://docs.discord.com/developers/resources/message#create-message

Used by the delivery engine. A recipient is a channel's id, or ``user:`` and a user's id, to whom the bot writes directly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from channels import rules
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable, wait_seconds
from channels.base import (
    Accepted,
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Scope,
    SendError,
    Throttled,
    Transient,
)
from channels.codes import Code, Codes
from channels.http import HttpClient, HttpResponse
from channels.rates import Rate, Rates

TEXT_LIMIT = 2000
EMBEDS_LIMIT = 10
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{20,120}")
_ID = re.compile(r"[0-9]{1,20}")
_USER = "user:"
_RULES: dict[str, rules.Rule] = {
    "embeds": rules.a(list, "a list of embeds"),
    "components": rules.a(list, "a list of components"),
    "message_reference": rules.OBJECT,
    "allowed_mentions": rules.OBJECT,
    "tts": rules.FLAG,
}
CODES = Codes(
    "https://docs.discord.com/developers/topics/opcodes-and-status-codes#json-json-error-codes",
    {
        Throttled: {
            "20016": "the channel is in slow mode",
            "20022": "this channel takes no more for the moment",
            "20028": "this channel takes no more for the moment",
            "40003": "direct messages were opened too fast",
        },
        Transient: {"130000": "Discord is overloaded"},
        RecipientRefused: {
            "10003": "there is no such channel, or the bot cannot see it",
            "10013": "there is no such user",
            "50007": Code(RecipientRefused, "the user takes no direct messages from the bot", suppress=True),
            "50024": "nothing can be written to a channel of this kind",
            "50033": "the user cannot be written to",
            "160006": "the thread is locked",
        },
        ContentRefused: {
            "20009": "it is marked explicit, which the recipient does not take",
            "40005": "it is too large",
            "50006": "it is empty",
            "50008": "messages cannot be sent to a channel that is no text channel",
            "50035": "a field is not what Discord takes",
            "50109": "its JSON is not what Discord takes",
            "200000": "a moderation rule of the server blocked it",
            "200001": "a moderation rule of the server blocked its title",
            "240000": "it holds a link that Discord blocks",
        },
        Misconfigured: {
            "0": "the bot's token is not valid",
            "40001": "the bot's token is not valid",
            "40002": "Discord wants the bot's account verified",
            "50001": "the bot has no access to the channel; invite it",
            "50013": "the bot lacks the permission to send messages here",
        },
    },
)


class Discord(Provider):
    """Discord knows our nonce for some minutes only, too short for our repeats; it sends no receipts."""

    name = "discord"
    channels = ("discord",)
    #: https://discord.com/developers/docs/topics/rate-limits#global-rate-limit
    usual_rates = Rates(Rate(50))
    options = (
        Option("token", "the bot's token", required=True, secret=True),
        Option("base_url", "where the API is", default="https://discord.com/api/v10"),
    )
    message_options = {
        "embeds": "up to 10 embeds, as Discord has them",
        "components": "buttons and menus, as Discord has them",
        "message_reference": "the message to answer, as Discord has it",
        "allowed_mentions": "whom it may mention; nobody, unless said",
        "tts": "true to have it read aloud",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._base = self.base_url
        self._headers = {
            "Authorization": f"Bot {settings['token']}",
            "Content-Type": "application/json",
            "User-Agent": "DiscordBot (https://chaski.example, 1)",  # without one Discord's door closes
        }

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the token goes into a header, so its form is checked."""
        checked = super().check(settings)
        if not _TOKEN.fullmatch(checked["token"]):
            raise InvalidOption("token", "must be a bot's token, without the word Bot before it")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Discord takes up to 2,000 characters of text, up to 10 embeds, and one of both at least."""
        refused = super().refuse(outbound) | _faults(outbound)
        if outbound.options.get("embeds"):
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: Discord has no HTML part"
        if len(outbound.text) > TEXT_LIMIT:
            refused["text"] = f"must have at most {TEXT_LIMIT:,} characters"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Create the message, with a direct channel before it where the recipient is a user. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        where = await self._channel(outbound.to)
        fields = {
            "allowed_mentions": {"parse": []},
            **rules.given(outbound.options, _RULES),
            "nonce": _nonce(outbound),
            "enforce_nonce": True,
        }
        response = await self._post(f"/channels/{where}/messages", {"content": outbound.text, **fields})
        accepted = json_object(response).get("id")
        if not isinstance(accepted, str) or not _ID.fullmatch(accepted):
            raise unreadable(response)
        return Accepted(f"{where}:{accepted}")

    async def _channel(self, to: str) -> str:
        if not to.startswith(_USER):
            return to
        try:
            response = await self._post("/users/@me/channels", {"recipient_id": to.removeprefix(_USER)})
        except (InDoubt, Transient) as error:
            raise NotSent(error.code, f"the direct channel was not opened: {error.detail}") from None
        opened = json_object(response).get("id")
        if not isinstance(opened, str) or not _ID.fullmatch(opened):
            raise NotSent("unreadable", "the answer to opening a direct channel names none")
        return opened

    async def _post(self, path: str, fields: Mapping[str, Any]) -> HttpResponse:
        response = await self.http.request(
            "POST",
            self._base + path,
            headers=self._headers,
            body=json.dumps(fields).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response)
        return response

    def _error(self, response: HttpResponse) -> SendError:
        answer = json_error(response)
        code, said = str(answer.get("code", "")), self.redact(str(answer.get("message", "")))
        wait = wait_seconds(answer.get("retry_after")) or retry_after(response.headers)
        if response.status == 429:
            everybody = answer.get("global") is True or not answer
            return Throttled(
                code or "http_429", said, retry_after=wait, scope=Scope.ACCOUNT if everybody else Scope.RECIPIENT
            )
        if response.status == 401:
            return Misconfigured(code or "http_401", f"{said}; is the bot's token right?")
        return CODES.error(code, said, retry_after=wait) or by_status(response, said, code)


def _nonce(outbound: Outbound) -> str:
    """At most 25 characters: the random end of our id."""
    return outbound.message_id.replace("-", "")[-25:]


def _faults(outbound: Outbound) -> dict[str, str]:
    found = rules.faults(outbound.options, _RULES)
    embeds = outbound.options.get("embeds")
    if isinstance(embeds, list) and len(embeds) > EMBEDS_LIMIT:
        found["options.embeds"] = f"must have at most {EMBEDS_LIMIT} embeds"
    if not _ID.fullmatch(outbound.to.removeprefix(_USER)):
        found["to"] = "must be a channel's id (digits), or user: and a user's id"
    return found
