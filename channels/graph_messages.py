"""The Send API of Meta's pages: what Messenger and Instagram have in common. Used by these providers.

https://developers.facebook.com/docs/messenger-platform/reference/send-api
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar

from channels import graph, rules
from channels.answers import json_object, unreadable
from channels.attachments import Attachment, Carriage, Kind, Takes
from channels.base import (
    Accepted,
    ContentRefused,
    InboundRequest,
    Misconfigured,
    NotAllowedNow,
    Outbound,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    Reply,
    Throttled,
    Transient,
)
from channels.codes import Code, Codes
from channels.reports import moment

_MESSAGE_ID = re.compile(r"[A-Za-z0-9_.:$=/+-]{1,512}")
_MEDIA = ("image_url", "video_url", "audio_url", "file_url")
_RULES: dict[str, rules.Rule] = {
    **dict.fromkeys(_MEDIA, rules.text),
    "template": rules.OBJECT,
    "quick_replies": rules.a(list, "a list of quick replies"),
    "human_agent": rules.FLAG,
}
MESSAGE_OPTIONS = {
    "image_url": "the URL of an image (up to 8 MB), instead of a text",
    "video_url": "the URL of a video (up to 25 MB), instead of a text",
    "audio_url": "the URL of an audio file (up to 25 MB), instead of a text",
    "file_url": "the URL of a file (up to 25 MB), instead of a text",
    "template": "the payload of a template, as the Send API has it, instead of a text",
    "quick_replies": "buttons below the text, as the Send API has them",
    "human_agent": "true where a person writes: allowed for seven days after the customer's last message",
}
LIMITS = dict.fromkeys(Kind, 25_000_000) | {Kind.IMAGE: 8_000_000}
_WINDOW = "more than 24 hours have passed since this person wrote last"

#: A code alone, or with its subcode. Meta documents few of the latter; they come first where both are known.
CODES = Codes(
    "https://developers.facebook.com/docs/messenger-platform/error-codes",
    {
        Throttled: {
            "4": Code(Throttled, "the app has made too many calls", wait=3600.0),
            "17": Code(Throttled, "too many calls for this account", wait=3600.0),
            "32": Code(Throttled, "too many calls for this page", wait=3600.0),
            "613": Code(Throttled, "too many calls in too short a time", wait=60.0),
            "4/2018022": Code(Throttled, "too many messages in too short a time", wait=60.0),
        },
        Transient: {
            "-1": "Meta does not say what is wrong",
            "1": "Meta does not say what is wrong; the customer may have blocked the business",
            "2": "the service is away for a moment, or the customer has blocked the business",
            "1200": "it could not be sent for the moment",
            "1545133": "it could not be sent for the moment",
        },
        NotAllowedNow: {
            "10/2018278": _WINDOW,
            "10/2018065": _WINDOW,
            "10/2534022": _WINDOW,
        },
        RecipientRefused: {
            "551": "this person cannot be written to",
            "10/2018108": "this person takes no messages for the moment",
            "200/1545041": "this person cannot be written to",
            "100/2018001": "there is no such person for this page",
            "100/2534014": "there is no such person, or they have blocked the account",
        },
        ContentRefused: {
            "100": "a parameter is not what Meta takes",
            "100/2018008": "the media could not be fetched; is the URL public?",
            "100/2018047": "the media could not be taken; is it of a type and size that is allowed?",
            "100/2018109": "the text is too long",
        },
        Misconfigured: {
            "3": "the app may not do this",
            "10": "the app lacks the permission to write for this page",
            "10/1893063": "the page may send nothing for a while",
            "190": "the access token has expired or was withdrawn",
            "200": "the app lacks a permission",
            "230": "the app lacks a permission",
            "368": "the page is blocked for a while, for breaking a policy",
            "199/11357046": "the page may not send messages",
            "2018344": "the page must accept Meta's terms first",
        },
    },
)


class SendApi(graph.Graph):
    """Meta takes no key of ours, and nothing of ours comes back: a request without an answer stays in doubt."""

    codes = CODES
    message_options = MESSAGE_OPTIONS
    #: Meta fetches media by their URL before it answers.
    call_seconds = 18.0
    takes = Takes(Carriage.FETCHED, 1, LIMITS)
    #: The option that names who sends.
    sender: ClassVar[str]

    @classmethod
    @abstractmethod
    def text_fault(cls, text: str) -> str:
        """Why ``text`` is too long; empty where it is not."""

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the sender's id stands in the URL."""
        checked = super().check(settings)
        graph.insist_on_id(checked, cls.sender)
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Either a text or one file or template; quick replies with a text only."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        kinds = [*_kinds(outbound), *(["attachments"] if outbound.attachments else [])]
        if len(kinds) > 1:
            refused[f"options.{kinds[1]}"] = f"must not be given together with {kinds[0]}"
        if kinds:
            refused.pop("text", None)
            if outbound.text:
                refused["text"] = f"must be empty where {kinds[0]} is given: send it as a message of its own"
        elif not outbound.text:
            refused["text"] = "must not be empty: there is no HTML part here"
        elif fault := cls.text_fault(outbound.text):
            refused["text"] = fault
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the message. Raises a ``SendError``."""
        return await self.post_message(outbound)

    async def post_message(self, outbound: Outbound, attachment_id: str = "") -> Accepted:
        """POST the message, its file by ``attachment_id`` where there is one, else by its URL. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        response = await self.post(f"{self.settings[self.sender]}/messages", _request(outbound, attachment_id))
        accepted = json_object(response).get("message_id")
        if not isinstance(accepted, str) or not _MESSAGE_ID.fullmatch(accepted):
            raise unreadable(response)
        return Accepted(accepted)

    def parse(self, request: InboundRequest) -> list[Receipt | Reply]:
        """What a report tells of messages by their ids, and what people write. Raises ``Unreadable``.

        Messenger tells of reading only that all before a moment were read, and of which person; that is no receipt of a message.
        """
        told = (event for entry in graph.entries(request) for event in graph.objects(entry.get("messaging")))
        return [each for event in told for each in _told(event)]


def _kinds(outbound: Outbound) -> list[str]:
    return [name for name in (*_MEDIA, "template") if outbound.options.get(name)]


def type_of(attachment: Attachment) -> str:
    """What the Send API calls this kind of file."""
    return "file" if attachment.kind is Kind.DOCUMENT else str(attachment.kind)


def _request(outbound: Outbound, attachment_id: str) -> dict[str, Any]:
    tagged = bool(outbound.options.get("human_agent"))
    manner = {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"} if tagged else {"messaging_type": "RESPONSE"}
    return {"recipient": {"id": outbound.to}, **manner, "message": _message(outbound, attachment_id)}


def _message(outbound: Outbound, attachment_id: str) -> dict[str, Any]:
    for attachment in outbound.attachments:
        payload = {"attachment_id": attachment_id} if attachment_id else {"url": attachment.url}
        return {"attachment": {"type": type_of(attachment), "payload": payload}}
    kinds = _kinds(outbound)
    if not kinds:
        quick = outbound.options.get("quick_replies")
        return {"text": outbound.text, **({"quick_replies": quick} if quick else {})}
    kind, given = kinds[0].removesuffix("_url"), outbound.options[kinds[0]]
    return {"attachment": {"type": kind, "payload": given if kind == "template" else {"url": given}}}


def _told(event: dict[str, Any]) -> Iterator[Receipt | Reply]:
    yield from _receipts(event)
    yield from _replies(event)


def _receipts(event: dict[str, Any]) -> Iterator[Receipt]:
    at = moment(event.get("timestamp"), per_second=1000)
    delivery, read = event.get("delivery"), event.get("read")
    if isinstance(delivery, dict) and isinstance(delivery.get("mids"), list):
        yield from (_receipt(mid, ReceiptKind.DELIVERED, at) for mid in delivery["mids"] if _is_id(mid))
    if isinstance(read, dict) and _is_id(read.get("mid")):
        yield _receipt(str(read["mid"]), ReceiptKind.READ, at)


def _replies(event: dict[str, Any]) -> Iterator[Reply]:
    """A message or the press of a button; not the echo of what the page itself writes."""
    sender, message, postback = event.get("sender"), event.get("message"), event.get("postback")
    said = message if isinstance(message, dict) else postback
    if not isinstance(sender, dict) or not _is_id(sender.get("id")) or not isinstance(said, dict):
        return
    mid = said.get("mid")
    if not _is_id(mid) or said.get("is_echo") or said.get("is_deleted"):
        return
    answered = said.get("reply_to")
    urls = (each.get("payload") for each in graph.objects(said.get("attachments")))
    yield Reply(
        event_id=f"reply:{mid}",
        sender=str(sender["id"]),
        text=next((said[name] for name in ("text", "title", "payload") if isinstance(said.get(name), str)), ""),
        files=tuple(url["url"] for url in urls if isinstance(url, dict) and isinstance(url.get("url"), str)),
        answers=str(answered["mid"]) if isinstance(answered, dict) and _is_id(answered.get("mid")) else "",
        at=moment(event.get("timestamp"), per_second=1000),
    )


def _receipt(mid: str, kind: ReceiptKind, at: datetime | None) -> Receipt:
    return Receipt(event_id=f"{mid}:{kind}", kind=kind, provider_message_id=mid, at=at, detail=str(kind))


def _is_id(found: object) -> bool:
    return isinstance(found, str) and _MESSAGE_ID.fullmatch(found) is not None
