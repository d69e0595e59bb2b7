"""Receipts from providers: verified on raw bytes, stored, answered 200. Applying them is the relay's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views import View

from channels.base import Forged, InboundRequest, Receipt, Unreadable
from channels.inbound import Reply
from deliveries import receipts, replies
from deliveries.api.bodies import of_a_stranger
from deliveries.api.problems import Problem, respond
from deliveries.api.verifiers import Verifier, verifiers
from deliveries.postgresql.group_commit import GroupCommit
from deliveries.postgresql.prepared import prepared, single_statement

log = structlog.get_logger(__name__)
BODY_LIMIT = 256 * 1024
#: Where a request carries what was met before Django came to it.
MET = "chaski.met"
_FORGED = Problem(401, "forged", "The request is not signed by the provider of this account.")

_Told = TypeVar("_Told")


class ReceiptsView(View):
    """`/receipts/{account_id}`: no key, the provider's signature instead. What is wrong is told to our log only."""

    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, public_id: UUID) -> HttpResponseBase:
        """Some vendors report by GET."""
        return self.post(request, public_id)

    def post(self, request: HttpRequest, public_id: UUID) -> HttpResponseBase:
        """Verify, store, 200."""
        _raise_again(request)
        try:
            body = of_a_stranger(request, BODY_LIMIT)
        except Problem as problem:
            return respond(request, problem)
        account = verifiers.find(public_id)
        if account is None:
            # The same answer as for a bad signature: an account's address cannot be guessed by trying.
            return respond(request, _FORGED)
        try:
            inbound = inbound_request(request, body)
            greeting = _as_it_is_now(lambda known: known.greet(inbound), public_id, account)
            if greeting is not None:
                log.info("vendor_greeted", account=account.account_id)
                return HttpResponse(greeting, content_type="text/plain")
            found = _as_it_is_now(lambda known: known.read(inbound), public_id, account)
            stored.write((account.account_id, found))
        except Forged as error:
            log.warning("receipt_forged", account=account.account_id, reason=str(error))
            return respond(request, _FORGED)
        except Unreadable as error:
            log.warning("receipt_unreadable", account=account.account_id, reason=str(error))
            return HttpResponse(status=200)
        except (DataError, UnicodeEncodeError) as error:
            # A NUL, or an id of ours that is none: no repeat would make it storable, so the vendor must not repeat it.
            log.warning("receipt_unreadable", account=account.account_id, reason=type(error).__name__)
            return HttpResponse(status=200)
        return HttpResponse(status=200)


def _raise_again(request: HttpRequest) -> None:
    """What this receipt met on the way past Django (``deliveries.api.express``), where it waited for the database."""
    met: Exception | None = request.META.get(MET)
    if met is not None:
        raise met


def _as_it_is_now(ask: Callable[[Verifier], _Told], public_id: UUID, account: Verifier) -> _Told:
    """What ``ask`` gives; where the request looks forged, asked of the account once more as it is now."""
    try:
        return ask(account)
    except Forged:
        anew = verifiers.find_anew(public_id)
        if anew is None:
            raise
        return ask(anew)


def _store(taken: Sequence[tuple[int, Sequence[Receipt | Reply]]]) -> list[int]:
    told = [(account_id, [each for each in found if isinstance(each, Receipt)]) for account_id, found in taken]
    written = [(account_id, [each for each in found if isinstance(each, Reply)]) for account_id, found in taken]
    with transaction.atomic() if any(each for _, each in written) else single_statement(), prepared() as cursor:
        new = receipts.store(cursor, told)
        replies.store(cursor, written)
    # One line for all of them: each is a row.
    accounts = sorted({account_id for account_id, _ in taken})
    log.info("receipts_stored", accounts=accounts, stored=sum(new))
    return new


#: Vendors send each receipt by itself, and many at one moment.
stored = GroupCommit(_store)


def inbound_request(request: HttpRequest, body: bytes) -> InboundRequest:
    """The request as the vendor made it: vendors sign the public URL, not the one behind a proxy."""
    return InboundRequest(
        method=request.method or "",
        url=settings.CHASKI_PUBLIC_URL + request.get_full_path(),
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.GET.dict(),
        body=body,
    )
