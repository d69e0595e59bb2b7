"""Facebook Messenger messages of a page. https://developers.facebook.com/docs/messenger-platform

Used by the delivery engine and the receipts endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from channels import graph
from channels.attachments import Attachment, Carriage, Takes
from channels.base import Accepted, Option, Outbound, SendError
from channels.graph_messages import LIMITS, SendApi, type_of
from channels.kept import MediaId, with_media_id
from channels.rates import Rate, Rates

TEXT_LIMIT = 2000
#: Ninety days, less some for clocks.
#: https://developers.facebook.com/documentation/business-messaging/messenger-platform/send-messages/saving-assets
_ATTACHMENT_LASTS = timedelta(days=88)


class Messenger(SendApi):
    """Meta takes no key of ours, and nothing of ours comes back: a request without an answer stays in doubt."""

    name = "messenger"
    channels = ("messenger",)
    sender = "page_id"
    #: https://developers.facebook.com/docs/messenger-platform/overview/rate-limiting, for text
    usual_rates = Rates(Rate(300))
    takes = Takes(Carriage.KEPT, 1, LIMITS)
    #: Besides the call itself, a message may wait for the upload of its file.
    deadline_seconds = 30.0
    lease_seconds = 90.0
    options = (
        Option("page_id", "the id of the page that writes, digits", required=True),
        graph.TOKEN,
        graph.APP_SECRET,
        graph.VERIFY_TOKEN,
        graph.BASE_URL,
        graph.MEDIA,
    )

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings."""
        checked = super().check(settings)
        graph.insist_on_media(checked)
        return checked

    @classmethod
    def text_fault(cls, text: str) -> str:
        """2,000 characters."""
        return f"must have at most {TEXT_LIMIT:,} characters" if len(text) > TEXT_LIMIT else ""

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the message, its file by the id of a saved attachment where Meta may keep it. Raises a ``SendError``."""
        for attachment in outbound.attachments:
            if attachment.keeper is not None and self.uploads:
                upload, send = partial(self._upload, attachment), partial(self.post_message, outbound)
                return await with_media_id(attachment.keeper, upload, send, _is_unknown_attachment)
        return await super().send(outbound)

    def media_place(self, attachment: Attachment) -> str:
        """A saved attachment is the page's own, and brings the file's name along."""
        return f"{super().media_place(attachment)} {self.settings['page_id']} {attachment.name}"

    async def _upload(self, attachment: Attachment) -> MediaId:
        """https://developers.facebook.com/docs/messenger-platform/reference/attachment-upload-api"""
        assert attachment.read is not None, "only what a service uploaded to us has a keeper"
        message = {"attachment": {"type": type_of(attachment), "payload": {"is_reusable": True}}}
        file = (attachment.name, await attachment.read(), attachment.content_type)
        fields: graph.Form = {"message": json.dumps(message), "filedata": file}
        path = f"{self.settings['page_id']}/message_attachments"
        return await self.upload(path, fields, "attachment_id", _ATTACHMENT_LASTS)


def _is_unknown_attachment(error: SendError) -> bool:
    """Meta documents no code for that; its words name the parameter."""
    return error.code.partition("/")[0] == "100" and "attachment" in error.detail.lower()
