"""Telegram messages through the Bot API.

Used by the delivery engine. https://core.telegram.org/bots/api#sendmessage
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from channels import rules
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable, wait_seconds
from channels.attachments import Attachment, Carriage, Kind, Takes
from channels.base import (
    Accepted,
    ContentRefused,
    Forged,
    InboundRequest,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Reply,
    Scope,
    SendError,
    Throttled,
    Unreadable,
)
from channels.http import HttpClient, HttpResponse
from channels.kept import Keeper, MediaId
from channels.rates import Rate, Rates
from channels.reports import moment

TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024

_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{3,128}")
_CHAT_NUMBER = re.compile(r"-?[0-9]{1,19}")
#: What a message may hold besides text -> the method that sends it and the field for its URL.
_MEDIA = {"photo_url": ("sendPhoto", "photo"), "document_url": ("sendDocument", "document")}
#: The same for an attachment.
_METHOD_OF = {
    Kind.IMAGE: ("sendPhoto", "photo"),
    Kind.VIDEO: ("sendVideo", "video"),
    Kind.AUDIO: ("sendAudio", "audio"),
    Kind.DOCUMENT: ("sendDocument", "document"),
}
#: A file_id holds for ever, for the same bot; ours is asked for anew once a year.
#: https://core.telegram.org/bots/api#sending-files
_FILE_ID_LASTS = timedelta(days=365)
#: What Telegram says of a file_id that it does not know.
_UNKNOWN_FILE = re.compile(r"wrong (remote |persistent )?file[_ ]?id|file_id_invalid|file_reference", re.I)
#: Passed on as they are: https://core.telegram.org/bots/api#sendmessage
_PASSED: dict[str, rules.Rule] = {
    "parse_mode": rules.one_of("HTML", "MarkdownV2", "Markdown"),
    "disable_notification": rules.FLAG,
    "protect_content": rules.FLAG,
    "message_thread_id": rules.NUMBER,
    "reply_markup": rules.OBJECT,
    "link_preview_options": rules.OBJECT,
}
_RULES = _PASSED | dict.fromkeys(_MEDIA, rules.text)

#: Telegram documents no codes, only descriptions, so these are what its server says, looked for in any case.
#: Nobody is there any more, or does not want us:
_GONE = re.compile(r"blocked by the user|user_is_blocked|user is deactivated|input_user_deactivated|was kicked", re.I)
#: Nothing wrong with the content: this chat cannot be written to.
_CHAT = re.compile(
    r"chat not found|user not found|peer_id_invalid|chat_id is empty|upgraded to a supergroup|not a member"
    r"|not enough rights|have no rights|chat_write_forbidden|topic_closed|message thread not found|chat_restricted",
    re.I,
)


class Telegram(Provider):
    """The Bot API takes no key of ours and sends no receipts: a request without an answer stays in doubt."""

    name = "telegram"
    channels = ("telegram",)
    replies = True
    #: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
    usual_rates = Rates(Rate(30), Rate(1))
    #: What it fetches by a URL: https://core.telegram.org/bots/api#sending-files
    takes = Takes(Carriage.KEPT, 1, dict.fromkeys(Kind, 20_000_000) | {Kind.IMAGE: 5_000_000})
    options = (
        Option("token", "the bot's token from @BotFather (123456:ABC...)", required=True, secret=True),
        Option("webhook_secret", "the secret_token that setWebhook was given, to hear of replies", secret=True),
        Option("base_url", "where the API is", default="https://api.telegram.org"),
    )
    message_options = {
        "parse_mode": "how the text is marked up: HTML, MarkdownV2 or Markdown",
        "photo_url": "a URL from which Telegram takes a photo (up to 5 MB); the text becomes its caption",
        "document_url": "a URL from which Telegram takes a file (up to 20 MB); the text becomes its caption",
        "disable_notification": "true to deliver without a sound",
        "protect_content": "true to forbid forwarding and saving",
        "message_thread_id": "the topic of a forum to write to, a whole number",
        "reply_markup": "buttons, as the Bot API has them",
        "link_preview_options": "how links are shown, as the Bot API has it",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/bot{settings['token']}"

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the token stands in the URL, so its form is checked."""
        checked = super().check(settings)
        if not _TOKEN.fullmatch(checked["token"]):
            raise InvalidOption("token", "must be a bot's token: digits, a colon, letters and digits")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Telegram takes 1 to 4096 characters of text, or one photo or file with a caption of up to 1024."""
        refused = super().refuse(outbound) | _faults(outbound)
        media = [name for name in _MEDIA if outbound.options.get(name)]
        if media and outbound.attachments:
            refused[f"options.{media[0]}"] = "must not be given together with attachments"
        media += ["attachments"] if outbound.attachments else []
        if media:
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: Telegram has no HTML part; mark text up with the option parse_mode"
        limit = CAPTION_LIMIT if media else TEXT_LIMIT
        if len(outbound.text) > limit and not outbound.options.get("parse_mode"):  # with one, markup does not count
            refused["text"] = f"must have at most {limit} characters here"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Call the sending method, with a file by its file_id where one is known. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        for attachment in outbound.attachments:
            if attachment.keeper is not None:
                return await self._send_kept(outbound, attachment.keeper)
        return Accepted(_message_id(await self._call(outbound)))

    def media_place(self, attachment: Attachment) -> str:
        """A file_id is the bot's own, whose number its token begins with, and brings the file's name along."""
        bot = self.settings["token"].partition(":")[0]
        return f"{super().media_place(attachment)} {bot} {attachment.name}"

    async def _send_kept(self, outbound: Outbound, keeper: Keeper) -> Accepted:
        """The first message with a file has its URL; its answer tells the file_id for the others."""
        async with keeper.first() as file_id:
            try:
                response = await self._call(outbound, file_id)
            except ContentRefused as error:
                if not file_id or not _UNKNOWN_FILE.search(error.detail) or not await keeper.forget(file_id):
                    raise
                file_id, response = "", await self._call(outbound)
            accepted = Accepted(_message_id(response))
            if not file_id and (told := _file_id(response, outbound.attachments[0])):
                keeper.learn(MediaId(told, _FILE_ID_LASTS))
            return accepted

    async def _call(self, outbound: Outbound, file_id: str = "") -> HttpResponse:
        method, fields = _request(outbound, file_id)
        response = await self.http.request(
            "POST",
            f"{self._url}/{method}",
            headers={"Content-Type": "application/json"},
            body=json.dumps(fields).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response) or json_object(response).get("ok") is not True:
            raise self._error(response, outbound.to)
        return response

    def verify(self, request: InboundRequest) -> None:
        """Check the header with our secret: https://core.telegram.org/bots/api#setwebhook. Raises ``Forged``."""
        secret = self.settings.get("webhook_secret", "")
        given = request.headers.get("x-telegram-bot-api-secret-token", "")
        if not secret or not hmac.compare_digest(given.encode(errors="replace"), secret.encode()):
            raise Forged("the update does not hold the account's webhook_secret")

    def parse(self, request: InboundRequest) -> list[Reply]:
        """What a person wrote to the bot; nothing for the other kinds of updates. Raises ``Unreadable``."""
        try:
            update = json.loads(request.body)
        except ValueError as error:
            raise Unreadable("an update is JSON") from error
        if not isinstance(update, dict) or not isinstance(update.get("update_id"), int):
            raise Unreadable("an update is an object with its update_id")
        message = update.get("message")
        return [_reply(update["update_id"], message)] if isinstance(message, dict) and _chat_of(message) else []

    def _error(self, response: HttpResponse, to: str) -> SendError:
        answer = json_error(response)
        code, said = str(answer.get("error_code", "")), self.redact(str(answer.get("description", "")))
        parameters = answer.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        if "429" in (code, str(response.status)):
            wait = wait_seconds(parameters.get("retry_after")) or retry_after(response.headers)
            return Throttled(code or "429", said, retry_after=wait, scope=_scope(to))
        if "migrate_to_chat_id" in parameters:
            return RecipientRefused("migrated", f"the group is now the chat {parameters['migrate_to_chat_id']}: {said}")
        if code in ("400", "403") and (code == "403" or _GONE.search(said) or _CHAT.search(said)):
            return RecipientRefused(code, said, suppress=bool(_GONE.search(said)))
        if code in ("401", "404", "409"):
            return Misconfigured(code, f"{said}; is the token right, and base_url the Bot API's?")
        if not is_success(response):
            return by_status(response, said, code)
        status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 0
        return by_status(HttpResponse(status, response.headers, b""), said, code) if status else unreadable(response)


def _request(outbound: Outbound, file_id: str) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {"chat_id": int(outbound.to) if _CHAT_NUMBER.fullmatch(outbound.to) else outbound.to}
    fields |= {name: outbound.options[name] for name in _PASSED if outbound.options.get(name) is not None}
    for (method, field), url in _media(outbound, file_id):
        caption = {"caption": outbound.text} if outbound.text else {}
        return method, fields | caption | {field: url}
    return "sendMessage", fields | {"text": outbound.text}


def _media(outbound: Outbound, file_id: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Each file's method and field, and where Telegram finds it."""
    for attachment in outbound.attachments:
        yield _METHOD_OF[attachment.kind], file_id or attachment.url
    for option, method in _MEDIA.items():
        if outbound.options.get(option):
            yield method, outbound.options[option]


def _file_id(response: HttpResponse, attachment: Attachment) -> str:
    """What Telegram calls the file that the message carries, if it took it for what we said it is."""
    result = json_object(response).get("result")
    _, field = _METHOD_OF[attachment.kind]
    return next(_files(result, (field,)), "") if isinstance(result, dict) else ""


def _message_id(response: HttpResponse) -> str:
    """Message numbers are unique within a chat only."""
    result = json_object(response).get("result")
    chat = result.get("chat") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(chat, dict) or not isinstance(result.get("message_id"), int):
        raise unreadable(response)
    return f"{chat.get('id')}:{result['message_id']}"


def _chat_of(message: Mapping[str, Any]) -> str:
    """The chat's id, empty for what is none."""
    chat = message.get("chat")
    return str(chat["id"]) if isinstance(chat, dict) and isinstance(chat.get("id"), int) else ""


def _reply(update_id: int, message: Mapping[str, Any]) -> Reply:
    chat, answered, person = _chat_of(message), message.get("reply_to_message"), message.get("from")
    number = answered.get("message_id") if isinstance(answered, dict) else None
    said = message.get("text") or message.get("caption")
    return Reply(
        event_id=f"update:{update_id}",
        sender=chat,
        text=said if isinstance(said, str) else "",
        name=str(person.get("first_name", "")) if isinstance(person, dict) else "",
        files=tuple(_files(message)),
        answers=f"{chat}:{number}" if isinstance(number, int) else "",
        at=moment(message.get("date")),
    )


def _files(
    message: Mapping[str, Any], kinds: Sequence[str] = ("photo", "document", "video", "audio", "voice")
) -> Iterator[str]:
    """Ids, by which getFile gives what came: of a photo the largest size, which is the last."""
    for kind in kinds:
        found = message.get(kind)
        if isinstance(found, list):
            found = found[-1] if found else None
        if isinstance(found, dict) and isinstance(found.get("file_id"), str):
            yield found["file_id"]


def _scope(to: str) -> Scope:
    """A group or a channel has a limit of its own, 20 a minute, far below the bot's.

    https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
    """
    return Scope.RECIPIENT if to.startswith(("-", "@")) else Scope.ACCOUNT


def _faults(outbound: Outbound) -> dict[str, str]:
    found = rules.faults(outbound.options, _RULES)
    if all(outbound.options.get(name) for name in _MEDIA):
        found["options.document_url"] = "must not be given together with photo_url"
    return found
