"""Receipts from providers: verified on raw bytes, stored, answered 200. Applying them is the relay's."""

from __future__ import annotations

from uuid import UUID

import structlog
from django.conf import settings
from django.db import DataError, connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from channels.base import Forged, InboundRequest, InvalidOption, Provider, Unreadable
from channels.registry import UnknownProvider, provider_class
from deliveries import receipts
from deliveries.api.bodies import of_a_stranger
from deliveries.api.problems import Problem, respond
from deliveries.delivery.accounts import owner
from deliveries.models import Account
from deliveries.secrets import Unsealable, unseal

log = structlog.get_logger(__name__)
BODY_LIMIT = 256 * 1024
_FORGED = Problem(401, "forged", "The request is not signed by the provider of this account.")


@method_decorator(csrf_exempt, name="dispatch")
class ReceiptsView(View):
    """`/receipts/{account_id}`: no key, the provider's signature instead. What is wrong is told to our log only."""

    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, public_id: UUID) -> HttpResponseBase:
        """Some vendors report by GET."""
        return self.post(request, public_id)

    def post(self, request: HttpRequest, public_id: UUID) -> HttpResponseBase:
        """Verify, store, 200."""
        try:
            body = of_a_stranger(request, BODY_LIMIT)
        except Problem as problem:
            return respond(request, problem)
        account = Account.objects.filter(public_id=public_id).first()
        if account is None:
            # The same answer as for a bad signature: an account's address cannot be guessed by trying.
            return respond(request, _FORGED)
        try:
            provider = verifier(account)
            inbound = inbound_request(request, body)
            provider.verify(inbound)
            found = provider.parse(inbound)
        except Forged as error:
            log.warning("receipt_forged", account=account.pk, reason=str(error))
            return respond(request, _FORGED)
        except Unreadable as error:
            log.warning("receipt_unreadable", account=account.pk, reason=str(error))
            return HttpResponse(status=200)
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                stored = receipts.store(cursor, account.pk, found)
        except (DataError, UnicodeEncodeError) as error:
            # A NUL, or an id of ours that is none: no repeat would make it storable, so the vendor must not repeat it.
            log.warning("receipt_unreadable", account=account.pk, reason=type(error).__name__)
            return HttpResponse(status=200)
        log.info("receipts_stored", account=account.pk, stored=stored)
        return HttpResponse(status=200)


def verifier(account: Account) -> Provider:
    """The account's provider, for verifying and parsing only: it gets no way out. Raises ``Forged``."""
    try:
        cls = provider_class(account.channel, account.provider)
        configured = cls.check({**account.options, **unseal(owner(account.public_id), bytes(account.secrets))})
    except (UnknownProvider, InvalidOption, Unsealable) as error:
        raise Forged(f"the account cannot verify anything: {error}") from error
    return cls(configured, None)  # type: ignore[arg-type]


def inbound_request(request: HttpRequest, body: bytes) -> InboundRequest:
    """The request as the vendor made it: vendors sign the public URL, not the one behind a proxy."""
    return InboundRequest(
        method=request.method or "",
        url=settings.CHASKI_PUBLIC_URL + request.get_full_path(),
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.GET.dict(),
        body=body,
    )
