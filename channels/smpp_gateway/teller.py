"""What the gateway tells Chaski: what SMSCs deliver, and answers that came too late, posted to each account's receipts address.

Made by ``desk``. An SMSC is told that its delivery was taken only after this.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from uuid import uuid4

import structlog

from channels.base import SendError
from channels.http import HttpClient
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.exchange import SIGNATURE_HEADER, Delivered, Purpose, Report, Taken, signature, written

log = structlog.get_logger(__name__)
_AT_ONCE = 50
_REMEMBERED = 10_000
_LATE_TRIES = 5


class Teller:
    """Belongs to its loop; any number of reports may be under way."""

    def __init__(self, http: HttpClient, patience: Patience) -> None:
        self._http, self._patience = http, patience
        self._gate = asyncio.Semaphore(_AT_ONCE)
        #: Deliveries that were not taken for certain -> the event that they were reported as.
        self._failed: OrderedDict[bytes, str] = OrderedDict()

    async def delivered(self, account: GatewayAccount, delivered: Delivered) -> bool:
        """Report what the SMSC delivered; True when Chaski has stored it.

        SMPP gives a delivery no id of its own: one that the SMSC repeats because it was not taken is the same event again, and
        equal words that come twice are two.
        """
        digest = hashlib.sha256(account.key.encode() + written(Report("", delivered))).digest()
        event, taken = self._failed.pop(digest, None) or uuid4().hex, False
        try:
            taken = await self._post(account, Report(event, delivered))
        finally:
            if not taken:
                self._failed[digest] = event
                if len(self._failed) > _REMEMBERED:
                    self._failed.popitem(last=False)
        return taken

    async def taken(self, account: GatewayAccount, message_id: str, provider_message_id: str) -> None:
        """Report that the SMSC has a message after all. Tried some times; without it the message stays in doubt."""
        report = Report(f"taken:{message_id}", taken=Taken(message_id, provider_message_id))
        for tried in range(_LATE_TRIES):
            if await self._post(account, report):
                return
            await asyncio.sleep(self._patience.again * 2**tried)
        log.error("smpp_taken_not_told", account=account.id, message=message_id)

    async def _post(self, account: GatewayAccount, report: Report) -> bool:
        body = written(report)
        signed = signature(account.settings["gateway_secret"], Purpose.REPORT, body)
        headers = {"Content-Type": "application/json", SIGNATURE_HEADER: signed}
        try:
            # The wait for a place counts: an SMSC that hears nothing for too long sends the delivery once more.
            async with asyncio.timeout(self._patience.report), self._gate:
                answer = await self._http.request(
                    "POST", account.receipts_url, headers=headers, body=body, timeout=self._patience.report
                )
        except (SendError, TimeoutError) as error:
            reason = error.code if isinstance(error, SendError) else "timeout"
            log.warning("smpp_report_not_taken", account=account.id, reason=reason)
            return False
        if answer.status != 200:
            log.warning("smpp_report_not_taken", account=account.id, status=answer.status)
        return answer.status == 200
