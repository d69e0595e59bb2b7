"""Push messages to the many services that have no provider of their own here, through apprise. https://appriseit.com

Used by the delivery engine. Apprise knows a service by a URL and tells of a message only whether all went well: no status, no id,
no time to wait. A service that matters deserves a provider of its own.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import apprise

from channels import rules
from channels.base import (
    Accepted,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
)
from channels.http import HttpClient

#: One for each message under way: apprise blocks.
THREADS = 16
_TO = "{to}"
#: A URL with {to} can be read if it can be with one of these: a number, a key, an address, a name.
_RECIPIENTS = ("15005550006", "uQiRzpo4DXghDmr9QzzfQu27cmVRsG", "ana@example.com", "ana")
#: Apprise decodes a URL, some of it twice, before it parts it at these: one recipient would become several, or a query.
_PARTS = re.compile(r"[\s,;\[\]/\\%?]")
#: Our name instead of apprise's, no pictures of its own, no redirects; it sends in the thread that calls it.
_ASSET = apprise.AppriseAsset(
    app_id="Chaski",
    app_desc="Chaski",
    app_url="",
    image_url_mask="",
    http_redirects=False,
    async_mode=False,
    service_timeout=0,
)

# It logs recipients and addresses; what staff may see is told by the error alone.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


class Apprise(Provider):
    """Apprise tells neither an id nor why a message did not go: whatever fails is in doubt. It sends no receipts."""

    name = "apprise"
    channels = ("push",)
    window = THREADS
    options = (
        Option("url", "the service's apprise URL; {to} in it becomes the recipient", required=True, secret=True),
    )

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="apprise")

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; apprise must be able to read the URL."""
        checked = super().check(settings)
        if not any(_service(checked["url"], to) for to in _RECIPIENTS):
            raise InvalidOption(
                "url", "apprise cannot read it; https://appriseit.com/services/ shows how it is written"
            )
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """A recipient that apprise would take for several; each service has limits of its own, which nobody knows here."""
        return super().refuse(outbound) | _faults(outbound)

    async def send(self, outbound: Outbound) -> Accepted:
        """Hand the message to apprise, in a thread. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        notifying = self._threads.submit(_notify, self.settings["url"], outbound)
        try:
            async with asyncio.timeout(self.call_seconds):
                went = await asyncio.wrap_future(notifying)
        except TimeoutError:
            if notifying.cancel():
                raise NotSent("busy", "no thread was free in time; the service is slow") from None
            raise InDoubt("timeout", "the service did not answer in time") from None
        if not went:
            raise InDoubt("no_answer_told", "apprise says that it did not go, and not why; it may have")
        return Accepted()

    async def close(self) -> None:
        """Begin nothing more; a thread that waits for a service ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _faults(outbound: Outbound) -> dict[str, str]:
    fault = "must not hold blanks, slashes, brackets, commas, semicolons, percent signs or question marks"
    return {"to": fault} if _PARTS.search(outbound.to) else {}


def _notify(url: str, outbound: Outbound) -> bool:
    service = _service(url, outbound.to)
    if service is None and _TO in url:
        raise RecipientRefused("recipient_unreadable", "the service's URL cannot be read with this recipient in it")
    if service is None:
        raise Misconfigured("url_unreadable", "apprise cannot read the account's URL")
    service.request_rate_per_sec = 0  # else it sleeps between the requests of one message; the engine keeps the pace
    service.retry, service.optional = 0, False  # a URL may ask for repeats, and for a yes whatever happens
    sender = apprise.Apprise(service, asset=_ASSET)
    text_format = apprise.NotifyFormat.TEXT if outbound.text else apprise.NotifyFormat.HTML
    return bool(sender.notify(outbound.text or outbound.html, title=outbound.subject, body_format=text_format))


def _service(url: str, to: str) -> Any:
    """The service that ``url`` names; None where apprise cannot read it, or finds nobody in it to write to.

    A new one each time: it keeps state of its sending.
    """
    service = apprise.Apprise.instantiate(url.replace(_TO, quote(to, safe="")), asset=_ASSET)
    return service if service is not None and len(service) else None
