"""The accounts of the SMPP gateway, as the database has them. Read by `manage.py smpp` every few seconds, in a thread apart."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection, transaction

from channels.base import InvalidOption
from channels.smpp import Smpp
from channels.smpp_gateway.account import GatewayAccount
from deliveries.delivery.accounts import owner, unusable
from deliveries.lineage import guard
from deliveries.models import Account
from deliveries.secrets import Unsealable, unseal

log = structlog.get_logger(__name__)


class Reader:
    """Reads them, and says what is wrong with one when it is found, not at each look."""

    def __init__(self) -> None:
        self._wrong: frozenset[tuple[int, str]] = frozenset()
        self._held = False

    def __call__(self) -> list[GatewayAccount] | None:
        """Every account that can be bound; none while the database is held; None where it does not answer.

        A database restored from a backup may be a copy beside the real one: it must not take the receipts that belong to that
        one. The SMSC keeps them meanwhile.
        """
        try:
            close_old_connections()
            if self._is_held():
                return []
            return self._usable(Account.objects.filter(provider=Smpp.name).order_by("pk"))
        except DatabaseError as error:
            log.warning("smpp_accounts_not_read", error=type(error).__name__)
            return None

    def _is_held(self) -> bool:
        guard()  # asks the lineage's witnesses, before there is a transaction
        with transaction.atomic(), connection.cursor() as cursor:
            held = guard().look(cursor).held
        if held and not self._held:
            log.warning("smpp_database_held")
        self._held = held
        return held

    def _usable(self, accounts: Iterable[Account]) -> list[GatewayAccount]:
        found, wrong = list[GatewayAccount](), set[tuple[int, str]]()
        for account in accounts:
            try:
                found.append(_as_gateway_has_it(account))
            except (InvalidOption, Unsealable) as error:
                wrong.add((account.pk, str(error)))
            except Exception as error:  # noqa: BLE001 - one row must not keep the messages of all others from being sent
                wrong.add((account.pk, unusable(error)))
        for account_id, reason in wrong - self._wrong:
            log.error("account_unusable", account=account_id, error=reason)
        self._wrong = frozenset(wrong)
        return found


def _as_gateway_has_it(account: Account) -> GatewayAccount:
    """Raises ``InvalidOption``, ``Unsealable``."""
    checked = Smpp.check({**account.options, **unseal(owner(account.public_id), bytes(account.secrets))})
    return GatewayAccount(account.pk, checked, f"{settings.CHASKI_PUBLIC_URL}/receipts/{account.public_id}")
