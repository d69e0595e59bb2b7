"""WhatsApp messages through Meta's Cloud API.

Used by the delivery engine and the receipts endpoint.
https://developers.facebook.com/documentation/business-messaging/whatsapp/reference/whatsapp-business-phone-number/message-api
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from channels import graph, rules
from channels.answers import json_object, unreadable
from channels.attachments import Attachment, Carriage, Kind, Takes
from channels.base import (
    DETAIL_LIMIT,
    Accepted,
    ContentRefused,
    InboundRequest,
    Misconfigured,
    NotAllowedNow,
    Option,
    Outbound,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    Reply,
    SendError,
    Throttled,
    Transient,
)
from channels.codes import Code, Codes
from channels.kept import MediaId, with_media_id
from channels.rates import Rate, Rates
from channels.reports import moment, our_id
from channels.whatsapp_replies import replies
from channels.whatsapp_requests import CAPTIONED, MEDIA, kinds_of, request_of

TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024
_WAMID = re.compile(r"wamid\.[A-Za-z0-9+/=_-]{1,256}")
_RULES: dict[str, rules.Rule] = {
    **dict.fromkeys(MEDIA, rules.text),
    "filename": rules.text,
    "template": rules.OBJECT,
    "interactive": rules.OBJECT,
    "preview_url": rules.FLAG,
    "reply_to": rules.text,
}
_KINDS = {
    "sent": ReceiptKind.SENT,
    "delivered": ReceiptKind.DELIVERED,
    "read": ReceiptKind.READ,
    "played": ReceiptKind.READ,
    "failed": ReceiptKind.UNDELIVERED,
}
_HOUR, _DAY = 3600.0, 86_400.0
#: Thirty days, less one for clocks and for messages that wait at Meta.
#: https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media
MEDIA_LASTS = timedelta(days=29)
#: What a message is refused with whose media id Meta does not know: always, or where its words are about media.
_MEDIA_CODES, _PARAMETER_CODES = frozenset({"131052", "131053"}), ("100", "131009")

CODES = Codes(
    "https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes",
    {
        Throttled: {
            "4": Code(Throttled, "the app has made too many calls", wait=_HOUR),
            "613": Code(Throttled, "too many calls in too short a time", wait=60.0),
            "80007": Code(Throttled, "the business account has reached its rate limit", wait=_HOUR),
            "130429": Code(Throttled, "the number sends faster than its throughput allows", wait=5.0),
            "131048": Code(Throttled, "too many of this number's messages were blocked or reported", wait=6 * _HOUR),
            "131056": Code(Throttled, "too many messages to this person in a short time", wait=6.0),
            "131064": Code(Throttled, "the number has reached its limit of conversations", wait=6 * _HOUR),
            "132069": Code(Throttled, "the flow was sent too often", wait=_HOUR),
            "133016": Code(Throttled, "the number was registered too often", wait=3 * _DAY),
        },
        Transient: {
            "1": "Meta does not say what is wrong",
            "2": "the service is away for a moment",
            "131000": "something went wrong at Meta",
            "131016": "the service is overloaded",
            "131057": "the account is being maintained",
            "133004": "the server is away for a moment",
            "135000": "Meta does not say what is wrong; perhaps a parameter",
        },
        NotAllowedNow: {
            "131047": "more than 24 hours have passed since this person wrote last; only a template may go",
            "131049": "Meta holds marketing messages to this person back; not before a day has passed",
            "130472": "this person is in an experiment of Meta's and gets no marketing messages",
        },
        RecipientRefused: {
            "131021": "the recipient is the number that sends",
            "131026": "it cannot be delivered: perhaps this person has no WhatsApp, or an old one",
            "131030": "a test number may write only to people on its list",
            "131050": Code(RecipientRefused, "this person wants no marketing messages from this number"),
            "131062": "this person cannot be written to by this kind of id",
            "137000": "this person's identity key has changed",
        },
        ContentRefused: {
            "33": "a parameter is not what Meta takes",
            "100": "a parameter is not what Meta takes",
            "131008": "a parameter is missing",
            "131009": "a parameter is not what Meta takes",
            "131051": "WhatsApp does not know this type of message",
            "131052": "the media could not be had; is the URL public, or the upload more than a month old?",
            "131053": "the media could not be taken; is it of a type and size that WhatsApp takes?",
            "132000": "the template has another number of parameters",
            "132001": "there is no such template in this language, or it is not approved yet",
            "132005": "the template's text is too long with these parameters",
            "132007": "the template breaks WhatsApp's policy",
            "132008": "a parameter of the template has another form",
            "132012": "a parameter of the template has another form",
            "132015": "the template is paused: too many people blocked it",
            "132016": "the template was paused too often and is disabled",
            "132068": "the flow is blocked",
        },
        Misconfigured: {
            "0": "the access token is not valid",
            "3": "the app may not do this",
            "10": "the app lacks the permission whatsapp_business_messaging",
            "190": "the access token has expired or was withdrawn",
            "200": "the app lacks a permission",
            "368": "the account is blocked for a while, for breaking a policy",
            "130497": "the account may not write to this country",
            "131005": "the app may not reach this number",
            "131031": "the account is locked",
            "131037": "the number's display name is not approved",
            "131042": "Meta could not charge for it; look at the payment method",
            "131045": "the number is not registered: its certificate is wrong",
            "131063": "the account may not send marketing messages this way",
            "133010": "the number is not registered",
        },
    },
)


class WhatsAppCloud(graph.Graph):
    """The Cloud API takes no key of ours. Our id goes with each message and comes back with its receipts."""

    name = "whatsapp_cloud"
    channels = ("whatsapp",)
    reads = True
    codes = CODES
    #: https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput
    #: More than one in 6 s to one person is its error 131056.
    usual_rates = Rates(Rate(80), Rate(1, 6.0))
    options = (
        Option("phone_number_id", "the id of the number that sends, digits", required=True),
        graph.TOKEN,
        graph.APP_SECRET,
        graph.VERIFY_TOKEN,
        graph.BASE_URL,
        graph.MEDIA,
    )
    #: Meta fetches media by their URL before it answers; before that, a message may wait for the upload of its file.
    call_seconds = 18.0
    deadline_seconds = 30.0
    lease_seconds = 90.0
    #: https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media#supported-media-types
    takes = Takes(
        Carriage.KEPT,
        1,
        {Kind.IMAGE: 5_000_000, Kind.VIDEO: 16_000_000, Kind.AUDIO: 16_000_000, Kind.DOCUMENT: 100_000_000},
    )
    media_codes = _MEDIA_CODES
    message_options = {
        "template": "a template: its name, language and components, as the Cloud API has them",
        "image_url": "the URL of an image (up to 5 MB); the text becomes its caption",
        "video_url": "the URL of a video (up to 16 MB); the text becomes its caption",
        "audio_url": "the URL of an audio file (up to 16 MB)",
        "document_url": "the URL of a file (up to 100 MB); the text becomes its caption",
        "sticker_url": "the URL of a sticker (WebP)",
        "filename": "the name under which a file is shown",
        "interactive": "buttons and lists, as the Cloud API has them",
        "preview_url": "true to show what a link in the text leads to",
        "reply_to": "the vendor's id of the message that is answered",
    }

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the number's id stands in the URL."""
        checked = super().check(settings)
        graph.insist_on_id(checked, "phone_number_id")
        graph.insist_on_media(checked)
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """WhatsApp takes a text of up to 4,096 characters, one media file, a template or something interactive."""
        refused = super().refuse(outbound) | _faults(outbound)
        kinds = kinds_of(outbound)
        if kinds and outbound.attachments:
            refused[f"options.{kinds[0]}"] = "must not be given together with attachments"
        if kinds or outbound.attachments:
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: WhatsApp has no HTML part"
        if len(kinds) > 1:
            refused[f"options.{kinds[1]}"] = f"must not be given together with {kinds[0]}"
        if outbound.text and any(each.kind is Kind.AUDIO for each in outbound.attachments):
            refused["text"] = "must be empty: audio carries no caption; send the text as a message of its own"
        limit = CAPTION_LIMIT if outbound.attachments or (kinds and kinds[0] in CAPTIONED) else TEXT_LIMIT
        if len(outbound.text) > limit:
            refused["text"] = f"must have at most {limit:,} characters here"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the message, its file by its media id where Meta may keep it. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        for attachment in outbound.attachments:
            if attachment.keeper is not None and self.uploads:
                upload, send = partial(self._upload, attachment), partial(self._post, outbound)
                return await with_media_id(attachment.keeper, upload, send, _is_unknown_media)
        return await self._post(outbound)

    def media_place(self, attachment: Attachment) -> str:
        """Media ids belong to the number that they were uploaded for."""
        return f"{super().media_place(attachment)} {self.settings['phone_number_id']}"

    async def _upload(self, attachment: Attachment) -> MediaId:
        assert attachment.read is not None, "only what a service uploaded to us has a keeper"
        file = (attachment.name, await attachment.read(), attachment.content_type)
        fields: graph.Form = {"messaging_product": "whatsapp", "type": attachment.content_type, "file": file}
        return await self.upload(f"{self.settings['phone_number_id']}/media", fields, "id", MEDIA_LASTS)

    async def _post(self, outbound: Outbound, media_id: str = "") -> Accepted:
        response = await self.post(f"{self.settings['phone_number_id']}/messages", request_of(outbound, media_id))
        messages = json_object(response).get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        accepted = first.get("id") if isinstance(first, dict) else None
        if not isinstance(accepted, str) or not _WAMID.fullmatch(accepted):
            raise unreadable(response)
        return Accepted(accepted)

    def parse(self, request: InboundRequest) -> list[Receipt | Reply]:
        """The statuses and replies that a report tells; up to a thousand. Raises ``Unreadable``."""
        entries = graph.entries(request)
        return [*(receipt for status in _statuses(entries) if (receipt := _receipt(status))), *replies(entries)]


def _is_unknown_media(error: SendError) -> bool:
    """Meta has no code of its own for a media id that it does not know; its words name the parameter."""
    if error.code in _MEDIA_CODES:
        return True
    return error.code in _PARAMETER_CODES and "media" in error.detail.lower()


def _statuses(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        for change in graph.objects(entry.get("changes")):
            value = change.get("value")
            yield from graph.objects(value.get("statuses") if isinstance(value, dict) else None)


def _receipt(status: dict[str, Any]) -> Receipt | None:
    """One status; None for one without an id, which could be about anything."""
    wamid, word = status.get("id"), status.get("status")
    if not isinstance(wamid, str) or not _WAMID.fullmatch(wamid) or not isinstance(word, str):
        return None
    errors = status.get("errors")
    error = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code = str(error.get("code", ""))[:64]
    known = dict(CODES.items()).get(code)
    said = str(error.get("title") or error.get("message") or word)
    return Receipt(
        event_id=f"{wamid}:{word}:{status.get('timestamp', '')}"[:400],
        kind=_KINDS.get(word, ReceiptKind.INFO),
        provider_message_id=wamid,
        message_id=our_id(status.get("biz_opaque_callback_data")),
        at=moment(status.get("timestamp")),
        code=code,
        detail=(f"{known.text}: {said}" if known else said)[:DETAIL_LIMIT],
    )


def _faults(outbound: Outbound) -> dict[str, str]:
    return rules.faults(outbound.options, _RULES)
